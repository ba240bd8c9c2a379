package android.content;

/** Opens files by their path, so that a test can give photos. */
public abstract class ContentResolver {
    public final java.io.InputStream openInputStream(android.net.Uri uri) throws java.io.FileNotFoundException {
        return new java.io.FileInputStream(uri.toString());
    }

    public final java.io.OutputStream openOutputStream(android.net.Uri uri) throws java.io.FileNotFoundException {
        throw new UnsupportedOperationException("stub");
    }

    public final android.net.Uri insert(android.net.Uri url, ContentValues values) {
        throw new UnsupportedOperationException("stub");
    }
}
