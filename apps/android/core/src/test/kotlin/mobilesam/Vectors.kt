package mobilesam

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs

/** Reads conformance vectors; the format is in apps/conformance/README.md. */
class Vectors(private val directory: File) {
    val root: Case = Case(parseJson(File(directory, "vectors.json").readText()) as Map<*, *>)

    init {
        check(root.text("format") == "mobilesam-vectors" && root.text("format_version") == "1") { "format ${root.text("format_version")}" }
        check(root.text("contract_version") == CONTRACT_VERSION) { "contract ${root.text("contract_version")}" }
    }

    fun section(name: String): List<Case> = root.cases(name)

    fun file(path: String): File = File(directory, path)

    /** uint8. */
    fun bytes(array: Case): ByteArray {
        check(array.text("dtype") == "uint8")
        return file(array.text("file")).readBytes()
    }

    fun floats(array: Case): FloatArray {
        check(array.text("dtype") == "float32")
        val stored = ByteBuffer.wrap(file(array.text("file")).readBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return FloatArray(stored.remaining()).also { stored.get(it) }
    }

    fun mask(array: Case): Mask {
        val (height, width) = array.ints("shape")
        return Mask(Size(width, height), bytes(array), FloatArray(0))
    }
}

/** An object of the JSON. */
class Case(private val values: Map<*, *>) {
    val name: String get() = text("name")

    fun has(key: String): Boolean = values[key] != null
    fun text(key: String): String = values[key] as String
    fun number(key: String): Double = values[key] as Double
    fun int(key: String): Int = number(key).toInt()
    fun flag(key: String): Boolean = values[key] as Boolean
    fun list(key: String): List<*> = values[key] as List<*>
    fun case(key: String): Case = Case(values[key] as Map<*, *>)
    fun cases(key: String): List<Case> = list(key).map { Case(it as Map<*, *>) }
    fun floats(key: String): FloatArray = list(key).map { (it as Double).toFloat() }.toFloatArray()
    fun ints(key: String): IntArray = list(key).map { (it as Double).toInt() }.toIntArray()
    fun intsOrNull(key: String): IntArray? = if (has(key)) ints(key) else null

    /** Stored as height, width. */
    fun size(key: String): Size = ints(key).let { (height, width) -> Size(width, height) }
    fun points(): List<Point> = list("points").map { point ->
        val (x, y, label) = (point as List<*>).map { it as Double }
        Point(x.toFloat(), y.toFloat(), label.toInt())
    }
    fun box(): Box? = if (has("box")) floats("box").let { (x0, y0, x1, y1) -> Box(x0, y0, x1, y1) } else null
}

/** The format's made-up photo. */
class MadeUpPhoto(override val size: Size) : PixelSource {
    override fun readRow(y: Int, into: IntArray) {
        for (x in 0 until size.width) {
            fun channel(c: Int) = (3 * x * x + 5 * y * y + 7 * x * y + 85 * c + 31 * ((x shr 4) xor (y shr 4))) % 256
            into[x] = (0xff shl 24) or (channel(0) shl 16) or (channel(1) shl 8) or channel(2)
        }
    }

    fun rgb(): RgbImage {
        val row = IntArray(size.width)
        val data = ByteArray(size.width * size.height * 3)
        for (y in 0 until size.height) {
            readRow(y, row)
            row.forEachIndexed { x, pixel ->
                for (c in 0 until 3) data[(y * size.width + x) * 3 + c] = (pixel shr (16 - 8 * c)).toByte()
            }
        }
        return RgbImage(size, data)
    }
}

fun madeUpLogits(imageSize: Int): FloatArray {
    val low = imageSize / 4
    fun tri(t: Int, p: Int) = abs(t.mod(2 * p) - p)
    return FloatArray(low * low) {
        val x = it % low
        val y = it / low
        ((tri(3 * x + y, 40) + tri(5 * y - 2 * x + 1000, 56) - 48.3046875) / 32).toFloat()
    }
}
