package mobilesam

import kotlin.math.max
import kotlin.math.min

/**
 * A mask at the photo's size.
 *
 * `data` has 1 in the mask, 0 outside, row by row. `logits` are S/4 x S/4, what `predict` takes as `previousMask`.
 */
class Mask(val size: Size, val data: ByteArray, val logits: FloatArray)

/** The mask at the photo's size: logits to S x S, cropped to the resized photo, to the photo; the threshold is last. */
fun logitsToMask(logits: FloatArray, imageSize: Int, photo: Size): Mask {
    val low = Size(imageSize / 4, imageSize / 4)
    val resized = resizedSize(photo, imageSize)
    val full = FloatArray(resized.width * resized.height)
    resample(logits, low, Size(imageSize, imageSize), resized) { y, row -> row.copyInto(full, y * resized.width) }
    val data = ByteArray(photo.width * photo.height)
    resample(full, resized, photo, photo) { y, row ->
        val offset = y * photo.width
        for (x in row.indices) if (row[x] > MASK_THRESHOLD) data[offset + x] = 1
    }
    return Mask(photo, data, logits)
}

/** For `count` of the `to` output pixels: both input pixels and the weight of the higher one; half-pixel centres. */
private class Neighbours(from: Int, to: Int, count: Int) {
    val low = IntArray(count)
    val high = IntArray(count)
    val weight = DoubleArray(count)

    init {
        for (i in 0 until count) {
            val source = max(0.0, (i + 0.5) * from / to - 0.5)
            low[i] = min(source.toInt(), from - 1)
            high[i] = min(low[i] + 1, from - 1)
            weight[i] = source - low[i]
        }
    }
}

/** Bilinear without antialias from `from` to `to`, of which the top-left `crop` is made, one row at a time. */
private inline fun resample(values: FloatArray, from: Size, to: Size, crop: Size, each: (y: Int, row: FloatArray) -> Unit) {
    val across = Neighbours(from.width, to.width, crop.width)
    val down = Neighbours(from.height, to.height, crop.height)
    val row = FloatArray(crop.width)
    for (y in 0 until crop.height) {
        val top = down.low[y] * from.width
        val bottom = down.high[y] * from.width
        val v = down.weight[y]
        for (x in 0 until crop.width) {
            val left = across.low[x]
            val right = across.high[x]
            val u = across.weight[x]
            val above = values[top + left] * (1 - u) + values[top + right] * u
            val below = values[bottom + left] * (1 - u) + values[bottom + right] * u
            row[x] = (above * (1 - v) + below * v).toFloat()
        }
        each(y, row)
    }
}

/** Intersection over union of two masks of one size; 1 if both are empty. */
fun maskIou(a: ByteArray, b: ByteArray): Double {
    require(a.size == b.size) { "got masks of ${a.size} and ${b.size} pixels; compare masks of one photo" }
    var intersection = 0
    var union = 0
    for (i in a.indices) {
        if (a[i] != 0.toByte() || b[i] != 0.toByte()) {
            union++
            if (a[i] != 0.toByte() && b[i] != 0.toByte()) intersection++
        }
    }
    return if (union == 0) 1.0 else intersection.toDouble() / union
}
