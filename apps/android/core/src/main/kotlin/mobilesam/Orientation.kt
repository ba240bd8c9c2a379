package mobilesam

/**
 * How the eight EXIF orientations are turned upright.
 *
 * With `transposed` upright pixel (x, y) lies at stored (y, x), else at (x, y); then that stored position is counted
 * from the other end of its row or column.
 */
enum class Orientation(private val transposed: Boolean, private val fromRight: Boolean, private val fromBottom: Boolean) {
    UPRIGHT(false, false, false),
    FLIPPED(false, true, false),
    TURNED_180(false, true, true),
    FLIPPED_DOWN(false, false, true),
    TRANSPOSED(true, false, false),
    TURNED_90(true, false, true),
    TRANSVERSED(true, true, true),
    TURNED_270(true, true, false),
    ;

    fun uprightSize(stored: Size): Size = if (transposed) Size(stored.height, stored.width) else stored

    /** A stored photo's pixels, upright. */
    fun upright(stored: RgbImage): RgbImage {
        val (width, height) = stored.size
        val size = uprightSize(stored.size)
        val data = ByteArray(stored.data.size)
        var to = 0
        for (y in 0 until size.height) {
            for (x in 0 until size.width) {
                val u = if (transposed) y else x
                val v = if (transposed) x else y
                val column = if (fromRight) width - 1 - u else u
                val row = if (fromBottom) height - 1 - v else v
                val from = 3 * (row * width + column)
                stored.data.copyInto(data, to, from, from + 3)
                to += 3
            }
        }
        return RgbImage(size, data)
    }

    /** The 3 x 3 matrix, row by row, that takes a stored position to the upright photo, as android.graphics.Matrix wants it. */
    fun matrix(stored: Size): FloatArray {
        val xScale = if (fromRight) -1f else 1f
        val xOffset = if (fromRight) stored.width.toFloat() else 0f
        val yScale = if (fromBottom) -1f else 1f
        val yOffset = if (fromBottom) stored.height.toFloat() else 0f
        return if (transposed) {
            floatArrayOf(0f, yScale, yOffset, xScale, 0f, xOffset, 0f, 0f, 1f)
        } else {
            floatArrayOf(xScale, 0f, xOffset, 0f, yScale, yOffset, 0f, 0f, 1f)
        }
    }

    companion object {
        /** By the number in a photo's EXIF data; what is no orientation is taken for upright, as viewers do. */
        fun fromExif(number: Int): Orientation = entries.getOrElse(number - 1) { UPRIGHT }
    }
}
