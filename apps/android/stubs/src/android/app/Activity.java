package android.app;

public class Activity extends android.content.Context {
    protected void onCreate(android.os.Bundle savedInstanceState) {
        throw new UnsupportedOperationException("stub");
    }

    protected void onDestroy() {
        throw new UnsupportedOperationException("stub");
    }

    protected void onActivityResult(int requestCode, int resultCode, android.content.Intent data) {
        throw new UnsupportedOperationException("stub");
    }

    public void startActivityForResult(android.content.Intent intent, int requestCode) {
        throw new UnsupportedOperationException("stub");
    }

    public void startActivity(android.content.Intent intent) {
        throw new UnsupportedOperationException("stub");
    }

    public void setContentView(android.view.View view) {
        throw new UnsupportedOperationException("stub");
    }
}
