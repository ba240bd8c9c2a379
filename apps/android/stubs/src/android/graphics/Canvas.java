package android.graphics;

public class Canvas {
    public int save() {
        throw new UnsupportedOperationException("stub");
    }

    public void restore() {
        throw new UnsupportedOperationException("stub");
    }

    public void concat(Matrix matrix) {
        throw new UnsupportedOperationException("stub");
    }

    public void drawBitmap(Bitmap bitmap, float left, float top, Paint paint) {
        throw new UnsupportedOperationException("stub");
    }

    public void drawPath(Path path, Paint paint) {
        throw new UnsupportedOperationException("stub");
    }

    public void drawCircle(float x, float y, float radius, Paint paint) {
        throw new UnsupportedOperationException("stub");
    }
}
