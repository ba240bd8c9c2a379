package android.view;

public final class MotionEvent {
    public float getX() {
        throw new UnsupportedOperationException("stub");
    }

    public float getY() {
        throw new UnsupportedOperationException("stub");
    }
}
