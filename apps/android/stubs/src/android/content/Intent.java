package android.content;

public class Intent {
    public static final String ACTION_GET_CONTENT = "android.intent.action.GET_CONTENT";
    public static final String ACTION_CREATE_DOCUMENT = "android.intent.action.CREATE_DOCUMENT";
    public static final String CATEGORY_OPENABLE = "android.intent.category.OPENABLE";
    public static final String EXTRA_TITLE = "android.intent.extra.TITLE";

    public Intent(String action) {
        throw new UnsupportedOperationException("stub");
    }

    public Intent(Context from, Class<?> activity) {
        throw new UnsupportedOperationException("stub");
    }

    public Intent setType(String type) {
        throw new UnsupportedOperationException("stub");
    }

    public Intent addCategory(String category) {
        throw new UnsupportedOperationException("stub");
    }

    public Intent putExtra(String name, String value) {
        throw new UnsupportedOperationException("stub");
    }

    public android.net.Uri getData() {
        throw new UnsupportedOperationException("stub");
    }
}
