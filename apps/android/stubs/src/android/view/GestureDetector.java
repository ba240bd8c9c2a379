package android.view;

public class GestureDetector {
    public interface OnGestureListener {}

    public static class SimpleOnGestureListener implements OnGestureListener {
        public boolean onDown(MotionEvent event) {
            return false;
        }

        public boolean onSingleTapUp(MotionEvent event) {
            return false;
        }

        public void onLongPress(MotionEvent event) {}
    }

    public GestureDetector(android.content.Context context, OnGestureListener listener) {
        throw new UnsupportedOperationException("stub");
    }

    public boolean onTouchEvent(MotionEvent event) {
        throw new UnsupportedOperationException("stub");
    }
}
