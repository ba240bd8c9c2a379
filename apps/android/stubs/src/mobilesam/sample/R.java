package mobilesam.sample;

public final class R {
    public static final class string {
        public static final int app_name = 1;
        public static final int choose = 2;
        public static final int undo = 3;
        public static final int save = 4;
        public static final int loading = 5;
        public static final int ready = 6;
        public static final int encoding = 7;
        public static final int tap = 8;
        public static final int score = 9;
        public static final int saved = 10;
        public static final int measure = 11;
        public static final int measure_what = 12;
        public static final int gpu = 13;
        public static final int progress = 14;
        public static final int measured = 15;
        public static final int save_receipt = 16;
        public static final int receipt_saved = 17;
    }
}
