package mobilesam

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min

/** A photo that is read one row at a time, so that a large one is never held twice. Upright. */
interface PixelSource {
    val size: Size

    /** Row `y` into the first `size.width` entries: 0xAARRGGBB, alpha ignored (not premultiplied). */
    fun readRow(y: Int, into: IntArray)
}

/** RGB, 8 bits a channel, row by row. */
class RgbImage(val size: Size, val data: ByteArray)

/** The same as a photo. */
class RgbSource(private val image: RgbImage) : PixelSource {
    override val size: Size = image.size

    override fun readRow(y: Int, into: IntArray) {
        var from = 3 * y * size.width
        for (x in 0 until size.width) {
            var pixel = 0xff
            repeat(3) { pixel = (pixel shl 8) or (image.data[from++].toInt() and 0xff) }
            into[x] = pixel
        }
    }
}

/** Weights are integers of this many fractional bits, as in PIL, so that the result is PIL's to the bit. */
private const val PRECISION_BITS = 22
private const val HALF = 1 shl (PRECISION_BITS - 1)

/** Refuse photos without pixels, and those whose pixels would fill the memory. */
fun checkPhotoSize(size: Size) {
    val pixels = size.width.toLong() * size.height
    if (size.width < 1 || size.height < 1 || pixels > LARGEST_PHOTO_PIXELS) {
        throw SegmenterError(
            ErrorCode.IMAGE,
            "got a photo of ${size.width} x ${size.height} pixels, expected 1 to ${LARGEST_PHOTO_PIXELS / 1_000_000} million; " +
                "give a smaller one",
        )
    }
}

/** The size that a photo takes in a model frame of side `imageSize`. */
fun resizedSize(photo: Size, imageSize: Int): Size {
    val scale = imageSize.toDouble() / max(photo.width, photo.height)
    fun side(pixels: Int) = max(1, floor(pixels * scale + 0.5).toInt())
    return Size(side(photo.width), side(photo.height))
}

/** Resize so that the longest side is `imageSize`: antialiased bilinear, as PIL does it. */
fun resizeLongestSide(photo: PixelSource, imageSize: Int): RgbImage {
    val from = photo.size
    val to = resizedSize(from, imageSize)
    // Horizontal first and rounded to 8 bits, then vertical.
    val across = ByteArray(to.width * from.height * 3)
    val columns = if (to.width == from.width) null else Taps(from.width, to.width)
    val row = IntArray(from.width)
    for (y in 0 until from.height) {
        photo.readRow(y, row)
        val offset = y * to.width * 3
        if (columns == null) copyRow(row, across, offset) else resizeRow(row, columns, across, offset, to.width)
    }
    if (to.height == from.height) return RgbImage(to, across)
    return RgbImage(to, resizeDown(across, to.width * 3, Taps(from.height, to.height), to.height))
}

/** For each of `to` output pixels: where its input pixels begin, how many there are, and their weights. */
private class Taps(from: Int, to: Int) {
    private val scale = from.toDouble() / to
    private val support = max(scale, 1.0)

    /** Weights of output pixel i begin at i * most. */
    val most: Int = ceil(support).toInt() * 2 + 1
    val first = IntArray(to)
    val counts = IntArray(to)
    val weights = IntArray(to * most)

    init {
        val exact = DoubleArray(most)
        for (i in 0 until to) {
            val centre = (i + 0.5) * scale
            val low = max(0, (centre - support + 0.5).toInt())
            val high = min(from, (centre + support + 0.5).toInt())
            var sum = 0.0
            for (j in low until high) {
                val weight = max(0.0, 1 - abs((j - centre + 0.5) * (1 / support)))
                exact[j - low] = weight
                sum += weight
            }
            first[i] = low
            counts[i] = high - low
            for (k in 0 until high - low) weights[i * most + k] = (exact[k] / sum * (1 shl PRECISION_BITS) + 0.5).toInt()
        }
    }
}

private fun clamp(sum: Int): Byte = (sum shr PRECISION_BITS).coerceIn(0, 255).toByte()

private fun copyRow(from: IntArray, to: ByteArray, offset: Int) {
    var at = offset
    for (pixel in from) {
        to[at++] = (pixel shr 16).toByte()
        to[at++] = (pixel shr 8).toByte()
        to[at++] = pixel.toByte()
    }
}

private fun resizeRow(from: IntArray, columns: Taps, to: ByteArray, offset: Int, width: Int) {
    for (x in 0 until width) {
        var r = HALF
        var g = HALF
        var b = HALF
        val first = columns.first[x]
        val weights = x * columns.most
        for (k in 0 until columns.counts[x]) {
            val pixel = from[first + k]
            val weight = columns.weights[weights + k]
            r += (pixel shr 16 and 0xff) * weight
            g += (pixel shr 8 and 0xff) * weight
            b += (pixel and 0xff) * weight
        }
        to[offset + 3 * x] = clamp(r)
        to[offset + 3 * x + 1] = clamp(g)
        to[offset + 3 * x + 2] = clamp(b)
    }
}

private fun resizeDown(from: ByteArray, rowBytes: Int, rows: Taps, height: Int): ByteArray {
    val to = ByteArray(rowBytes * height)
    val sums = IntArray(rowBytes)
    for (y in 0 until height) {
        sums.fill(HALF)
        for (k in 0 until rows.counts[y]) {
            val weight = rows.weights[y * rows.most + k]
            val offset = (rows.first[y] + k) * rowBytes
            for (i in 0 until rowBytes) sums[i] += (from[offset + i].toInt() and 0xff) * weight
        }
        for (i in 0 until rowBytes) to[y * rowBytes + i] = clamp(sums[i])
    }
    return to
}
