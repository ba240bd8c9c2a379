package android.view;

public class View {
    public interface OnClickListener {
        void onClick(View view);
    }

    public View(android.content.Context context) {
        throw new UnsupportedOperationException("stub");
    }

    public boolean isEnabled() {
        throw new UnsupportedOperationException("stub");
    }

    public void setEnabled(boolean enabled) {
        throw new UnsupportedOperationException("stub");
    }

    public void setOnClickListener(OnClickListener listener) {
        throw new UnsupportedOperationException("stub");
    }

    public boolean getFitsSystemWindows() {
        throw new UnsupportedOperationException("stub");
    }

    public void setFitsSystemWindows(boolean fits) {
        throw new UnsupportedOperationException("stub");
    }

    public void invalidate() {
        throw new UnsupportedOperationException("stub");
    }

    public final int getWidth() {
        throw new UnsupportedOperationException("stub");
    }

    public final int getHeight() {
        throw new UnsupportedOperationException("stub");
    }

    public android.content.res.Resources getResources() {
        throw new UnsupportedOperationException("stub");
    }

    public boolean onTouchEvent(MotionEvent event) {
        throw new UnsupportedOperationException("stub");
    }

    protected void onDraw(android.graphics.Canvas canvas) {
        throw new UnsupportedOperationException("stub");
    }
}
