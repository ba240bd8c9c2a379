package android.content;

public abstract class ContentResolver {
    public final java.io.InputStream openInputStream(android.net.Uri uri) throws java.io.FileNotFoundException {
        throw new UnsupportedOperationException("stub");
    }

    public final java.io.OutputStream openOutputStream(android.net.Uri uri) throws java.io.FileNotFoundException {
        throw new UnsupportedOperationException("stub");
    }

    public final android.net.Uri insert(android.net.Uri url, ContentValues values) {
        throw new UnsupportedOperationException("stub");
    }
}
