package mobilesam

import java.io.File
import java.io.FileNotFoundException
import kotlinx.coroutines.runBlocking
import mobilesam.ErrorCode.MODEL_FILE

/** Receipts over an engine that is none, and vectors that are missing, damaged or another bundle's. */
fun main() {
    `a receipt counts the cases and names the worst`()
    `vectors that are missing, damaged or of another bundle are refused with the command that writes them`()
    `percentiles are the nearest rank`()
    `peak memory is what the kernel says, or null`()
}

/** Two photos; the fake engine's answer to the case "half" is half of what the vectors say. */
private class Files {
    private val low = SIDE / 4
    val files = HashMap<String, ByteArray>()

    init {
        files["a.u8"] = MadeUpPhoto(Size(40, 20)).rgb().data
        files["b.u8"] = MadeUpPhoto(Size(16, 16)).rgb().data
        files["logits.f32"] = ByteArray(4 * low * low)
        // One tap gives columns from a quarter on (row 2, see FakeEngine); a refinement everything.
        files["columns.u8"] = ByteArray(800) { if (it % 40 >= 10) 1 else 0 }
        files["half.u8"] = ByteArray(800) { if (it % 40 >= 25) 1 else 0 }
        files["all.u8"] = ByteArray(256) { 1 }
        files["vectors.json"] = VECTORS.encodeToByteArray()
    }

    fun change(from: String, to: String) = apply {
        check(from in VECTORS) { from }
        files["vectors.json"] = VECTORS.replace(from, to).encodeToByteArray()
    }

    fun open(path: String) = files[path]?.inputStream() ?: throw FileNotFoundException(path)
}

private val VECTORS = """{"format": "mobilesam-vectors", "format_version": "1", "contract_version": "1", "bundle":
    {"weights_sha256": "${bundle.weightsSha256}", "image_size": $SIDE, "contract_version": "1", "targets": {"tflite": {"least_iou": 0.99}},
    "photos": [
    {"name": "a", "pixels": {"file": "a.u8", "dtype": "uint8", "shape": [20, 40, 3]}, "cases": [
      {"name": "point", "points": [[3.5, 4, 1]], "box": null, "previous_mask": null, "score": 0.9, "mask": {"file": "columns.u8", "dtype": "uint8", "shape": [20, 40]}},
      {"name": "half", "points": [[3.5, 4, 1]], "box": null, "previous_mask": null, "score": 0.9, "mask": {"file": "half.u8", "dtype": "uint8", "shape": [20, 40]}}]},
    {"name": "b", "pixels": {"file": "b.u8", "dtype": "uint8", "shape": [16, 16, 3]}, "cases": [
      {"name": "box", "points": [], "box": [1, 2, 3, 4.5], "previous_mask": {"file": "logits.f32", "dtype": "float32", "shape": [8, 8]},
       "score": 0.5, "mask": {"file": "all.u8", "dtype": "uint8", "shape": [16, 16]}}]}]}}"""

private fun measured(engine: FakeEngine, files: Files, device: Device, progress: (Int, Int, String) -> Unit = { _, _, _ -> }) =
    Segmenter(bundle) { engine }.use { segmenter -> runBlocking { measure(segmenter, files::open, device, progress) } }

private fun `a receipt counts the cases and names the worst`() {
    val engine = FakeEngine()
    val told = ArrayList<String>()
    val receipt = measured(engine, Files(), Device(" Some\nphone ", "", desktop = true)) { done, of, what ->
        check(of == 45 && done == told.size + 1)
        told += what
    }
    check(told.size == 45 && told.last() == "tap 20 of 20")
    check(engine.calls.count { it == "encode" } == 2 + 21 && engine.calls.size == 2 + 21 + 3 + 21) { engine.calls }
    check(engine.calls.last() == "decode 16.0") // the middle of the first photo, in the model frame
    check(receipt["cases"] == 3 && receipt["worst_case"] == "a, half") { receipt }
    val columns = 30 // of which the vectors' 15 are in both
    check(receipt["lowest_mask_iou"] == 15.0 / columns) { receipt }
    check(receipt["device"] == "Some phone" && receipt["system"] == "not said" && receipt["desktop"] == true)
    check(receipt["image_size"] == SIDE && receipt["precision"] == "float32" && receipt["weights_sha256"] == bundle.weightsSha256)
    for (name in listOf("encode_ms", "predict_ms")) {
        val times = receipt[name] as Map<*, *>
        check(times["runs"] == 20 && times["p50"] as Double <= times["p90"] as Double) { times }
    }
    check(Regex("\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ").matches(receipt["measured_at"] as String))
}

private fun `vectors that are missing, damaged or of another bundle are refused with the command that writes them`() {
    val wrong = listOf(
        Files().apply { files.remove("vectors.json") },
        Files().apply { files.remove("all.u8") },
        Files().apply { files["all.u8"] = ByteArray(255) },
        Files().apply { files["all.u8"] = ByteArray(257) },
        Files().apply { files["vectors.json"] = ByteArray((16 shl 20) + 1) { ' '.code.toByte() } },
        Files().change("mobilesam-vectors", "zip"),
        Files().change("\"format_version\": \"1\"", "\"format_version\": \"2\""),
        Files().change(bundle.weightsSha256, "1".repeat(64)),
        Files().change("\"image_size\": $SIDE", "\"image_size\": 64"),
        Files().change("\"bundle\":", "\"other\":"),
        Files().change("tflite", "onnx"),
        Files().change("\"a.u8\"", "\"../a.u8\""),
        Files().change("[20, 40, 3]", "[20, 40, 4]"),
        Files().change("[20, 40, 3]", "[20, 1e9, 3]"),
        Files().change("[16, 16]", "[16, 15]"),
        Files().change("[8, 8]", "[8, 9]"),
        Files().change("\"dtype\": \"float32\"", "\"dtype\": \"uint8\""),
        Files().change("[3.5, 4, 1]", "[3.5, 4]"),
        Files().change("}]}]}}", "}]}"),
    )
    for (files in wrong) {
        expect(MODEL_FILE) { measured(FakeEngine(), files, Device("", "", true)) }
        val error = runCatching { measured(FakeEngine(), files, Device("", "", true)) }.exceptionOrNull()
        check("mobilesam-export vectors BUNDLE/vectors --bundle BUNDLE" in error!!.message!!) { error.message!! }
    }
}

private fun `percentiles are the nearest rank`() {
    val times = (20 downTo 1).map { it.toDouble() }
    check(percentile(times, 0.5) == 10.0 && percentile(times, 0.9) == 18.0)
    check(percentile(listOf(0.12345), 0.9) == 0.12)
}

private fun `peak memory is what the kernel says, or null`() {
    val status = kotlin.io.path.createTempFile().toFile()
    try {
        status.writeText("VmPeak:\t  900000 kB\nVmHWM:\t  204800 kB\n")
        check(peakMemoryMb(status) == 210)
        status.writeText("Name:\tmobilesam\n")
        check(peakMemoryMb(status) == null && peakMemoryMb(File("/none")) == null)
    } finally {
        status.delete()
    }
}
