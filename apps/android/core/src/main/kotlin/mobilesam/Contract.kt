package mobilesam

/** What goes into the two models and what comes out, as mobilesam_export/contract.py says. */
const val CONTRACT_VERSION: String = "1"

/** Larger photos are refused before memory is taken. */
const val LARGEST_PHOTO_PIXELS: Int = 64_000_000

/** RGB, 0 to 255, for what the photo does not cover of the model frame. */
internal val PAD_COLOUR = floatArrayOf(123.675f, 116.28f, 103.53f)

/** The same for encoders that take 8-bit pixels. */
internal val PAD_COLOUR_8BIT = byteArrayOf(124, 116, 104)

/** Values of the decoder's `point_labels`. */
internal object Label {
    /** An unused slot, masked out of every attention. */
    const val ABSENT = -2f

    /** SAM's padding point: one at (0, 0) whenever points come without a box. */
    const val PADDING = -1f
    const val BOX_TOP_LEFT = 2f
    const val BOX_BOTTOM_RIGHT = 3f
}

/** The decoder's masks: row 0 the single answer, rows 1 to 3 the alternatives for one ambiguous tap. */
internal const val MASK_COUNT = 4
internal const val MASK_THRESHOLD = 0f

data class Size(val width: Int, val height: Int)
