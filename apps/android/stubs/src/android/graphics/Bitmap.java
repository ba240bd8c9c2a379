package android.graphics;

/** Has real pixels, so that a test can look; no colour spaces, and turning by quarters and flips only. */
public final class Bitmap {
    public enum Config { ARGB_8888 }

    public enum CompressFormat { PNG }

    private final int width;
    private final int[] pixels;
    private boolean recycled;

    private Bitmap(int width, int height) {
        this.width = width;
        pixels = new int[width * height];
    }

    public static Bitmap createBitmap(int width, int height, Config config) {
        return new Bitmap(width, height);
    }

    public static Bitmap createBitmap(Bitmap source, int x, int y, int width, int height, Matrix matrix, boolean filter) {
        float[] m = matrix.values;
        boolean transposed = m[0] == 0;
        Bitmap turned = new Bitmap(transposed ? height : width, transposed ? width : height);
        for (int v = 0; v < height; v++) {
            for (int u = 0; u < width; u++) { // of each pixel its centre
                int toX = (int) (m[0] * (u + 0.5f) + m[1] * (v + 0.5f) + m[2]);
                int toY = (int) (m[3] * (u + 0.5f) + m[4] * (v + 0.5f) + m[5]);
                turned.pixels[toY * turned.width + toX] = source.pixels[(y + v) * source.width + x + u];
            }
        }
        return turned;
    }

    public int getWidth() {
        return width;
    }

    public int getHeight() {
        return pixels.length / width;
    }

    public void getPixels(int[] into, int offset, int stride, int x, int y, int width, int height) {
        if (recycled) throw new IllegalStateException("Can't call getPixels() on a recycled bitmap");
        for (int row = 0; row < height; row++) System.arraycopy(pixels, (y + row) * this.width + x, into, offset + row * stride, width);
    }

    public void setPixels(int[] from, int offset, int stride, int x, int y, int width, int height) {
        for (int row = 0; row < height; row++) System.arraycopy(from, offset + row * stride, pixels, (y + row) * this.width + x, width);
    }

    public void recycle() {
        recycled = true;
    }

    public boolean compress(CompressFormat format, int quality, java.io.OutputStream stream) {
        throw new UnsupportedOperationException("stub");
    }
}
