package android.widget;

public class TextView extends android.view.View {
    public TextView(android.content.Context context) {
        super(context);
    }

    public CharSequence getText() {
        throw new UnsupportedOperationException("stub");
    }

    public final void setText(CharSequence text) {
        throw new UnsupportedOperationException("stub");
    }

    public final void setText(int id) {
        throw new UnsupportedOperationException("stub");
    }
}
