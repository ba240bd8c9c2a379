package android.view;

public abstract class ViewGroup extends View {
    public static class LayoutParams {
        public static final int MATCH_PARENT = -1;
    }

    public ViewGroup(android.content.Context context) {
        super(context);
    }

    public void addView(View child) {
        throw new UnsupportedOperationException("stub");
    }

    public void addView(View child, LayoutParams parameters) {
        throw new UnsupportedOperationException("stub");
    }
}
