package android.graphics;

public class Paint {
    public static final int ANTI_ALIAS_FLAG = 1;

    public static final int FILTER_BITMAP_FLAG = 2;

    public Paint(int flags) {
        throw new UnsupportedOperationException("stub");
    }

    public int getColor() {
        throw new UnsupportedOperationException("stub");
    }

    public void setColor(int colour) {
        throw new UnsupportedOperationException("stub");
    }
}
