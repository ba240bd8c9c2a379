package android.media;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;

/** The orientation of a file whose Exif data are in its beginning; nothing else of what the real one reads. */
public class ExifInterface {
    public static final String TAG_ORIENTATION = "Orientation";

    private final byte[] file;

    public ExifInterface(InputStream stream) throws IOException {
        file = stream.readAllBytes();
    }

    public int getAttributeInt(String tag, int otherwise) {
        int exif = new String(file, StandardCharsets.ISO_8859_1).indexOf("Exif\0\0");
        if (exif < 0) return otherwise;
        ByteBuffer tiff = ByteBuffer.wrap(file, exif + 6, file.length - exif - 6).slice();
        tiff.order(tiff.get(0) == 'I' ? ByteOrder.LITTLE_ENDIAN : ByteOrder.BIG_ENDIAN);
        int directory = tiff.getInt(4);
        for (int entry = 0; entry < tiff.getShort(directory); entry++) {
            int at = directory + 2 + 12 * entry;
            if (tiff.getShort(at) == 0x0112) return tiff.getShort(at + 8);
        }
        return otherwise;
    }
}
