package mobilesam

/** How an encoder takes its image. */
enum class Layout { NCHW, NHWC }

/** The encoder's input as float32: the resized photo in the top-left corner of S x S, the rest in the pad colour. */
fun modelFrame(photo: RgbImage, imageSize: Int, layout: Layout = Layout.NHWC): FloatArray {
    val frame = FloatArray(3 * imageSize * imageSize)
    forEachFrameValue(photo, imageSize, layout) { at, from, c ->
        frame[at] = if (from >= 0) (photo.data[from].toInt() and 0xff).toFloat() else PAD_COLOUR[c]
    }
    return frame
}

/** The same for encoders that take 8-bit pixels. */
fun modelFrame8Bit(photo: RgbImage, imageSize: Int, layout: Layout = Layout.NHWC): ByteArray {
    val frame = ByteArray(3 * imageSize * imageSize)
    forEachFrameValue(photo, imageSize, layout) { at, from, c -> frame[at] = if (from >= 0) photo.data[from] else PAD_COLOUR_8BIT[c] }
    return frame
}

/** Each value of the frame: where it goes, where in the photo's data it comes from (-1: padding), its channel. */
private inline fun forEachFrameValue(photo: RgbImage, imageSize: Int, layout: Layout, set: (at: Int, from: Int, c: Int) -> Unit) {
    val (width, height) = photo.size
    val pixelStep = if (layout == Layout.NCHW) 1 else 3
    val channelStep = if (layout == Layout.NCHW) imageSize * imageSize else 1
    for (y in 0 until imageSize) {
        for (x in 0 until imageSize) {
            val covered = x < width && y < height
            for (c in 0 until 3) {
                val at = (y * imageSize + x) * pixelStep + c * channelStep
                set(at, if (covered) (y * width + x) * 3 + c else -1, c)
            }
        }
    }
}
