package android.widget;

public class LinearLayout extends android.view.ViewGroup {
    public static final int VERTICAL = 1;

    public static class LayoutParams extends android.view.ViewGroup.LayoutParams {
        public LayoutParams(int width, int height, float weight) {}
    }

    public LinearLayout(android.content.Context context) {
        super(context);
    }

    public int getOrientation() {
        throw new UnsupportedOperationException("stub");
    }

    public void setOrientation(int orientation) {
        throw new UnsupportedOperationException("stub");
    }

    public int getGravity() {
        throw new UnsupportedOperationException("stub");
    }

    public void setGravity(int gravity) {
        throw new UnsupportedOperationException("stub");
    }
}
