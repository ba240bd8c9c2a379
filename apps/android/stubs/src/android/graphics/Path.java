package android.graphics;

/** Remembers what it is told, so that a test can look. */
public class Path {
    private final StringBuilder told = new StringBuilder();

    public void moveTo(float x, float y) {
        told.append("M").append(x).append(",").append(y);
    }

    public void lineTo(float x, float y) {
        told.append("L").append(x).append(",").append(y);
    }

    public void close() {
        told.append("Z");
    }

    @Override
    public String toString() {
        return told.toString();
    }
}
