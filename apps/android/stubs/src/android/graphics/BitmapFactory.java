package android.graphics;

public class BitmapFactory {
    public static class Options {
        public boolean inJustDecodeBounds;
        public int outWidth;
        public int outHeight;
    }

    public static Bitmap decodeStream(java.io.InputStream stream, Rect padding, Options options) {
        throw new UnsupportedOperationException("stub");
    }
}
