package mobilesam.android;

/** Gradle writes it; here the tests say which library they run. */
public final class BuildConfig {
    public static final String LITERT_VERSION = System.getProperty("mobilesam.liteRtVersion", "of no version");
}
