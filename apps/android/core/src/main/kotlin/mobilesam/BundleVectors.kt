package mobilesam

import java.io.IOException
import java.io.InputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** The masks that a bundle's models must give: section `bundle` of its conformance vectors (apps/conformance/README.md). */
class BundleVectors private constructor(
    val photos: List<VectorPhoto>,
    /** The least IoU that the export accepted itself, or null if it was not asked. */
    val leastIou: Double?,
    private val open: (path: String) -> InputStream,
) {
    fun photo(photo: VectorPhoto): RgbImage = RgbImage(photo.pixels.size, read(photo.pixels))

    /** What to give as `previousMask`, or null. */
    fun previousMask(asked: VectorCase): Mask? = asked.previousMask?.let { stored ->
        val values = ByteBuffer.wrap(read(stored)).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        Mask(stored.size, ByteArray(0), FloatArray(values.remaining()).also { values.get(it) })
    }

    /** The reference's mask, 0 and 1 row by row. */
    fun mask(asked: VectorCase): ByteArray = read(asked.mask)

    private fun read(stored: StoredArray): ByteArray {
        val bytes = try {
            open(stored.file).use { it.readBytesAtMost(stored.bytes + 1) }
        } catch (error: IOException) {
            throw SegmenterError(ErrorCode.MODEL_FILE, "${stored.file} of the vectors is missing; $WRITE_AGAIN", error)
        }
        if (bytes.size != stored.bytes) {
            throw SegmenterError(ErrorCode.MODEL_FILE, "${stored.file} of the vectors does not have ${stored.bytes} bytes; $WRITE_AGAIN")
        }
        return bytes
    }

    companion object {
        /** Read `vectors.json`; `open` is given paths relative to it. Refuses vectors of another bundle. */
        fun read(bundle: Bundle, open: (path: String) -> InputStream): BundleVectors {
            val text = try {
                open("vectors.json").use { it.readBytesAtMost(LARGEST_VECTORS_BYTES + 1) }
            } catch (error: IOException) {
                throw SegmenterError(ErrorCode.MODEL_FILE, "the bundle has no vectors; $WRITE_AGAIN", error)
            }
            if (text.size > LARGEST_VECTORS_BYTES) throw damagedVectors("more than $LARGEST_VECTORS_BYTES bytes")
            val root = try {
                record(parseJson(text.decodeToString()))
            } catch (error: JsonError) {
                throw damagedVectors("not JSON: ${error.message}")
            }
            if (root["format"] != "mobilesam-vectors" || root["format_version"] != "1") throw damagedVectors("format ${root["format_version"]}")
            val section = root["bundle"] as? Map<*, *> ?: throw otherBundle()
            val isOurs = section["weights_sha256"] == bundle.weightsSha256 && section["image_size"] == bundle.imageSize.toDouble()
            if (!isOurs || section["contract_version"] != CONTRACT_VERSION) throw otherBundle()
            val target = record(record(section["targets"])["tflite"])
            val photos = list(section["photos"]).map { photoOf(record(it), bundle.imageSize / 4) }
            if (photos.isEmpty()) throw damagedVectors("no photo")
            return BundleVectors(photos, target["least_iou"] as? Double, open)
        }
    }
}

class VectorPhoto(val name: String, val pixels: StoredArray, val cases: List<VectorCase>)

/** One prompt on a photo. */
class VectorCase(
    val name: String,
    val points: List<Point>,
    val box: Box?,
    val previousMask: StoredArray?,
    val mask: StoredArray,
    val score: Double,
)

/** An array's file, its width and height, and how many bytes it has. */
class StoredArray(val file: String, val size: Size, val bytes: Int)

private const val LARGEST_VECTORS_BYTES = 16 shl 20
private const val WRITE_AGAIN = "write them with: mobilesam-export vectors BUNDLE/vectors --bundle BUNDLE"

private fun photoOf(entry: Map<*, *>, low: Int): VectorPhoto {
    val pixels = array(entry["pixels"], "uint8", channels = 3)
    return VectorPhoto(text(entry["name"]), pixels, list(entry["cases"]).map { caseOf(record(it), pixels.size, low) })
}

private fun caseOf(entry: Map<*, *>, photo: Size, low: Int): VectorCase {
    val mask = array(entry["mask"], "uint8")
    val previous = entry["previous_mask"]?.let { array(it, "float32") }
    if (mask.size != photo || (previous != null && previous.size != Size(low, low))) throw damagedVectors("a mask of another size")
    return VectorCase(
        name = text(entry["name"]),
        points = list(entry["points"]).map { point ->
            val (x, y, label) = numbers(point, 3)
            Point(x.toFloat(), y.toFloat(), label.toInt())
        },
        box = entry["box"]?.let { corners ->
            val (x0, y0, x1, y1) = numbers(corners, 4).map { it.toFloat() }
            Box(x0, y0, x1, y1)
        },
        previousMask = previous,
        mask = mask,
        score = entry["score"] as? Double ?: throw damagedVectors("score"),
    )
}

private fun array(value: Any?, dtype: String, channels: Int = 1): StoredArray {
    val entry = record(value)
    val file = text(entry["file"])
    if (!isInside(file) || entry["dtype"] != dtype) throw damagedVectors("array $file")
    val shape = numbers(entry["shape"], if (channels == 1) 2 else 3)
    if (channels != 1 && shape[2] != channels.toDouble()) throw damagedVectors("shape $shape")
    if (shape.any { it < 1 || it > LARGEST_PHOTO_PIXELS } || shape[0] * shape[1] > LARGEST_PHOTO_PIXELS) throw damagedVectors("shape $shape")
    val size = Size(shape[1].toInt(), shape[0].toInt())
    return StoredArray(file, size, size.width * size.height * channels * (if (dtype == "float32") 4 else 1))
}

private fun numbers(value: Any?, count: Int): List<Double> {
    val numbers = list(value).map { it as? Double ?: throw damagedVectors("$it is no number") }
    if (numbers.size != count) throw damagedVectors("${numbers.size} numbers instead of $count")
    return numbers
}

private fun record(value: Any?): Map<*, *> = value as? Map<*, *> ?: throw damagedVectors("an entry is missing")

private fun list(value: Any?): List<*> = value as? List<*> ?: throw damagedVectors("a list is missing")

private fun text(value: Any?): String = value as? String ?: throw damagedVectors("a name is missing")

private fun damagedVectors(what: String) =
    SegmenterError(ErrorCode.MODEL_FILE, "vectors.json is not what it should be (${what.take(80)}); $WRITE_AGAIN")

private fun otherBundle() = SegmenterError(ErrorCode.MODEL_FILE, "the vectors are not this bundle's; $WRITE_AGAIN")
