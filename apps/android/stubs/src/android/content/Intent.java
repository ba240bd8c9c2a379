package android.content;

public class Intent {
    public static final String ACTION_GET_CONTENT = "android.intent.action.GET_CONTENT";

    public Intent(String action) {
        throw new UnsupportedOperationException("stub");
    }

    public Intent setType(String type) {
        throw new UnsupportedOperationException("stub");
    }

    public android.net.Uri getData() {
        throw new UnsupportedOperationException("stub");
    }
}
