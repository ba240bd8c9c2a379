package android.graphics;

import java.awt.image.BufferedImage;
import java.io.IOException;
import java.io.InputStream;
import java.util.Iterator;
import javax.imageio.ImageIO;
import javax.imageio.ImageReader;
import javax.imageio.stream.ImageInputStream;

/** Decodes with Java's ImageIO; null, or a width of -1, for what it cannot decode, as Android's. */
public class BitmapFactory {
    public static class Options {
        public boolean inJustDecodeBounds;
        public int outWidth;
        public int outHeight;
    }

    public static Bitmap decodeStream(InputStream stream, Rect padding, Options options) {
        try (ImageInputStream input = ImageIO.createImageInputStream(stream)) {
            Iterator<ImageReader> readers = ImageIO.getImageReaders(input);
            if (!readers.hasNext()) throw new IOException("no reader");
            ImageReader reader = readers.next();
            reader.setInput(input);
            if (options != null && options.inJustDecodeBounds) {
                options.outWidth = reader.getWidth(0);
                options.outHeight = reader.getHeight(0);
                return null;
            }
            BufferedImage image = reader.read(0);
            int width = image.getWidth();
            int height = image.getHeight();
            Bitmap bitmap = Bitmap.createBitmap(width, height, Bitmap.Config.ARGB_8888);
            bitmap.setPixels(image.getRGB(0, 0, width, height, null, 0, width), 0, width, 0, 0, width, height);
            return bitmap;
        } catch (IOException error) {
            if (options != null) options.outWidth = -1;
            return null;
        }
    }
}
