package mobilesam

import java.io.File
import javax.imageio.ImageIO
import kotlin.math.abs
import kotlin.system.exitProcess

/** Runs all conformance vectors: `VectorsTestKt FOLDER`, one line a section; exit status 1 with the cases that fail. */
fun main(arguments: Array<String>) {
    exitProcess(if (Conformance(Vectors(File(arguments[0]))).run()) 0 else 1)
}

private class Conformance(private val vectors: Vectors) {
    private val failures = ArrayList<String>()

    fun run(): Boolean {
        section("resize", 20, ::resize)
        section("orientation", 8, ::orientation)
        section("frames", 6, ::frame)
        section("prompts", 90, ::prompt)
        section("prompt_errors", 10, ::promptError)
        section("choices", 4, ::choice)
        section("masks", 15, ::mask)
        section("regions", 70, ::region)
        section("polygons", 10, ::polygon)
        failures.forEach { println("FAILED $it") }
        return failures.isEmpty()
    }

    /** Every case says null or what is wrong with it. */
    private fun section(name: String, least: Int, wrong: (Case) -> String?) {
        val cases = vectors.section(name)
        if (cases.size < least) failures += "$name: ${cases.size} cases, expected at least $least"
        for (case in cases) wrong(case)?.let { failures += "$name, ${case.name}: $it" }
        println("$name: ${cases.size} cases")
    }

    private fun resize(case: Case): String? {
        val photo = case.size("photo_size")
        val resized = resizeLongestSide(MadeUpPhoto(photo), case.int("image_size"))
        if (resized.size != case.size("resized_size")) return "size ${resized.size}"
        val got = someRows(resized.data, resized.size.width * 3, case.intsOrNull("rows"))
        // Of photos this tall Pillow resizes the height first, which moves some pixels by one level.
        return farthest(got, vectors.bytes(case.case("pixels")), if (photo.height > 2 * photo.width) 1 else 0)
    }

    private fun orientation(case: Case): String? {
        val orientation = Orientation.fromExif(case.int("orientation"))
        val stored = MadeUpPhoto(case.size("stored_size")).rgb()
        val upright = orientation.upright(stored)
        if (upright.size != case.size("upright_size")) return "size ${upright.size}"
        farthest(upright.data, vectors.bytes(case.case("pixels")), 0)?.let { return it }
        farthest(byMatrix(stored, orientation).data, upright.data, 0)?.let { return "by its matrix $it" }
        val decoded = ImageIO.read(vectors.file(case.text("jpeg")))
        val pixels = ByteArray(decoded.width * decoded.height * 3)
        for (i in pixels.indices) {
            pixels[i] = (decoded.getRGB(i / 3 % decoded.width, i / 3 / decoded.width) shr (16 - 8 * (i % 3))).toByte()
        }
        val turned = orientation.upright(RgbImage(Size(decoded.width, decoded.height), pixels))
        val (height, width) = case.case("jpeg_pixels").ints("shape")
        if (turned.size != Size(width, height)) return "JPEG of ${turned.size}"
        return farthest(turned.data, vectors.bytes(case.case("jpeg_pixels")), 8)?.let { "JPEG $it" }
    }

    /** Each stored pixel's centre taken to the upright photo, as android.graphics.Matrix does it. */
    private fun byMatrix(stored: RgbImage, orientation: Orientation): RgbImage {
        val m = orientation.matrix(stored.size)
        val size = orientation.uprightSize(stored.size)
        val data = ByteArray(stored.data.size)
        for (y in 0 until stored.size.height) {
            for (x in 0 until stored.size.width) {
                val u = (m[0] * (x + 0.5f) + m[1] * (y + 0.5f) + m[2]).toInt()
                val v = (m[3] * (x + 0.5f) + m[4] * (y + 0.5f) + m[5]).toInt()
                for (c in 0 until 3) data[(v * size.width + u) * 3 + c] = stored.data[(y * stored.size.width + x) * 3 + c]
            }
        }
        return RgbImage(size, data)
    }

    private fun frame(case: Case): String? {
        val imageSize = case.int("image_size")
        val resized = resizeLongestSide(MadeUpPhoto(case.size("photo_size")), imageSize)
        val layout = if (case.text("layout") == "nchw") Layout.NCHW else Layout.NHWC
        val pixels = case.case("pixels")
        return if (pixels.text("dtype") == "uint8") {
            farthest(modelFrame8Bit(resized, imageSize, layout), vectors.bytes(pixels), 0)
        } else {
            val same = modelFrame(resized, imageSize, layout).contentEquals(vectors.floats(pixels))
            if (same) null else "other values"
        }
    }

    private fun prompt(case: Case): String? {
        val photo = case.size("photo_size")
        val maxPoints = if (case.has("max_points")) case.int("max_points") else null
        val hasMask = case.flag("previous_mask")
        checkPrompt(case.points(), case.box(), hasMask, photo, maxPoints)
        val slots = promptSlots(case.points(), case.box(), photo, case.int("image_size"), maxPoints)
        if (!slots.labels.contentEquals(case.floats("point_labels"))) return "labels ${slots.labels.toList()}"
        val expected = case.list("point_coords").flatMap { it as List<*> }.map { (it as Double).toFloat() }
        if (slots.coords.size != expected.size) return "${slots.coords.size} coordinates"
        expected.forEachIndexed { i, value -> if (abs(slots.coords[i] - value) > 0.001f) return "coordinate ${slots.coords[i]} for $value" }
        if (isAmbiguous(case.points(), case.box(), hasMask) != case.flag("multimask")) return "ambiguous or not"
        return if (hasMask == (case.int("has_mask_input") == 1)) null else "has_mask_input"
    }

    private fun promptError(case: Case): String? {
        val code = try {
            checkPrompt(case.points(), case.box(), case.flag("previous_mask"), case.size("photo_size"), case.int("max_points"))
            "nothing"
        } catch (error: SegmenterError) {
            error.code.text
        }
        return if (code == case.text("error")) null else "$code instead of ${case.text("error")}"
    }

    private fun choice(case: Case): String? {
        val row = bestRow(case.flag("multimask"), case.floats("iou_predictions"))
        return if (row == case.int("row")) null else "row $row"
    }

    private fun mask(case: Case): String? {
        val imageSize = case.int("image_size")
        val logits = if (case.has("logits")) vectors.floats(case.case("logits")) else madeUpLogits(imageSize)
        val made = logitsToMask(logits, imageSize, case.size("photo_size"))
        val got = someRows(made.data, made.size.width, case.intsOrNull("rows"))
        val expected = vectors.bytes(case.case("mask"))
        if (got.size != expected.size) return "${got.size} pixels instead of ${expected.size}"
        // 2 is either: the reference's logit is at the threshold there.
        val wrong = expected.indices.firstOrNull { expected[it] != 2.toByte() && expected[it] != got[it] }
        return wrong?.let { "pixel $it" }
    }

    private fun region(case: Case): String? {
        val mask = vectors.mask(case.case("mask"))
        val area = case.int("area")
        val result = if (case.text("operation") == "fill_holes") fillHoles(mask, area) else removeIslands(mask, area)
        return farthest(result.data, vectors.bytes(case.case("result")), 0)
    }

    private fun polygon(case: Case): String? {
        val rings = polygons(vectors.mask(case.case("mask"))).map { it.toList() }
        val expected = case.list("rings").map { ring -> (ring as List<*>).flatMap { it as List<*> }.map { (it as Double).toInt() } }
        return if (rings == expected) null else "rings $rings"
    }

    /** Rows of a result that a case holds. */
    private fun someRows(data: ByteArray, rowBytes: Int, rows: IntArray?): ByteArray {
        if (rows == null) return data
        val some = ByteArray(rows.size * rowBytes)
        rows.forEachIndexed { i, row -> data.copyInto(some, i * rowBytes, row * rowBytes, (row + 1) * rowBytes) }
        return some
    }

    private fun farthest(got: ByteArray, expected: ByteArray, allowed: Int): String? {
        if (got.size != expected.size) return "${got.size} values instead of ${expected.size}"
        val most = got.indices.maxOfOrNull { abs((got[it].toInt() and 0xff) - (expected[it].toInt() and 0xff)) } ?: 0
        return if (most <= allowed) null else "off by $most"
    }
}
