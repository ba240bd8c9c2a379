package android.graphics;

public class Matrix {
    public void setValues(float[] values) {
        throw new UnsupportedOperationException("stub");
    }

    public void setScale(float x, float y) {
        throw new UnsupportedOperationException("stub");
    }

    public boolean postTranslate(float x, float y) {
        throw new UnsupportedOperationException("stub");
    }
}
