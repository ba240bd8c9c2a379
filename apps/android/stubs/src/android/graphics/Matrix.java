package android.graphics;

/** Remembers its values, row by row. */
public class Matrix {
    float[] values;

    public void setValues(float[] values) {
        this.values = values;
    }

    public void setScale(float x, float y) {
        throw new UnsupportedOperationException("stub");
    }

    public boolean postTranslate(float x, float y) {
        throw new UnsupportedOperationException("stub");
    }
}
