package android.content;

public abstract class Context {
    public android.content.res.AssetManager getAssets() {
        throw new UnsupportedOperationException("stub");
    }

    public android.content.res.Resources getResources() {
        throw new UnsupportedOperationException("stub");
    }

    public ContentResolver getContentResolver() {
        throw new UnsupportedOperationException("stub");
    }

    public final String getString(int id, Object... arguments) {
        throw new UnsupportedOperationException("stub");
    }
}
