package android.provider;

public final class MediaStore {
    public interface MediaColumns {
        String DISPLAY_NAME = "_display_name";
        String MIME_TYPE = "mime_type";
    }

    public static final class Images {
        public static final class Media {
            public static final android.net.Uri EXTERNAL_CONTENT_URI = null;
        }
    }
}
