package mobilesam

import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import kotlin.coroutines.cancellation.CancellationException
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout

/** The host API over an engine that is none: order, errors, cancellation, closing. Each test's name is a sentence. */
fun main() {
    `predict before setImage and after reset has no image`()
    `one tap gives the best of three and a refinement row 0`()
    `a wrong prompt or mask leaves the segmenter usable`()
    `an unreadable or oversized photo leaves the earlier one set`()
    `an engine that fails is closed and the next call opens another`()
    `an engine that cannot open says so and may open later`()
    `two calls at once run one after the other in their order`()
    `a cancelled setImage returns at once and leaves the earlier photo`()
    `closing during a call ends the waiting ones and closes the engine once`()
    `a manifest is believed only where it is checked`()
    `a truncated or changed model file is refused`()
    `broken JSON is refused`()
    `what is written as JSON is read again`()
    `a cut-out has the photo's colours and the mask as alpha`()
}

private val photo = MadeUpPhoto(Size(40, 20))
private val tap = listOf(Point(3f, 4f))

private fun test(engine: FakeEngine = FakeEngine(), body: suspend (Segmenter, FakeEngine) -> Unit) {
    Segmenter(bundle) { engine }.use { segmenter -> runBlocking { withTimeout(20_000) { body(segmenter, engine) } } }
}

private fun `predict before setImage and after reset has no image`() = test { segmenter, _ ->
    expect(ErrorCode.NO_IMAGE) { segmenter.predict(tap) }
    segmenter.setImage(photo)
    check(segmenter.photo == photo.size)
    segmenter.predict(tap)
    segmenter.reset()
    expect(ErrorCode.NO_IMAGE) { segmenter.predict(tap) }
    check(segmenter.photo == null)
}

private fun `one tap gives the best of three and a refinement row 0`() = test { segmenter, _ ->
    segmenter.setImage(photo)
    val (mask, score) = segmenter.predict(tap)
    check(score == 0.9f && mask.size == photo.size && mask.logits[1] == -1f && mask.logits[2] == 1f)
    check(mask.data[0] == 0.toByte() && mask.data[39] == 1.toByte())
    val (refined, scoreAfter) = segmenter.predict(tap, previousMask = mask)
    check(scoreAfter == 0.5f && refined.data.all { it == 1.toByte() })
}

private fun `a wrong prompt or mask leaves the segmenter usable`() = test { segmenter, engine ->
    segmenter.setImage(photo)
    expect(ErrorCode.NO_PROMPT) { segmenter.predict() }
    expect(ErrorCode.POINT_OUTSIDE) { segmenter.predict(listOf(Point(Float.NaN, 1f))) }
    expect(ErrorCode.POINT_OUTSIDE) { segmenter.predict(box = Box(0f, 0f, Float.POSITIVE_INFINITY, 1f)) }
    expect(ErrorCode.MASK_SIZE) { segmenter.predict(previousMask = Mask(photo.size, ByteArray(800), FloatArray(5))) }
    expect(ErrorCode.TOO_MANY_POINTS) { segmenter.predict(List(8) { Point(1f, 1f) }) }
    segmenter.predict(tap)
    check(engine.closings == 0)
}

private fun `an unreadable or oversized photo leaves the earlier one set`() = test { segmenter, _ ->
    segmenter.setImage(photo)
    for (size in listOf(Size(0, 5), Size(10_000, 10_000), Size(65_536, 65_537))) {
        expect(ErrorCode.IMAGE) { segmenter.setImage(object : PixelSource {
            override val size = size
            override fun readRow(y: Int, into: IntArray) = error("must not be read")
        }) }
    }
    expect(ErrorCode.IMAGE) { segmenter.setImage(object : PixelSource {
        override val size = Size(9, 9)
        override fun readRow(y: Int, into: IntArray) = throw IllegalStateException("recycled")
    }) }
    check(segmenter.predict(tap).mask.size == photo.size)
}

private fun `an engine that fails is closed and the next call opens another`() {
    val engines = ArrayList<FakeEngine>()
    Segmenter(bundle) { FakeEngine().also { engines += it } }.use { segmenter ->
        runBlocking { segmenter.setImage(photo) }
        val failures = listOf(IllegalStateException("GPU lost\nin line two"), OutOfMemoryError("heap"), UnsatisfiedLinkError("no library"))
        for (failure in failures) {
            engines.last().failing = failure
            expect(ErrorCode.ENGINE) { segmenter.predict(tap) }
            check(engines.last().closings == 1)
            runBlocking { segmenter.predict(tap) } // the embedding is still there
        }
        check(engines.size == 4)
    }
}

private fun `an engine that cannot open says so and may open later`() {
    var openings = 0
    Segmenter(bundle) { if (openings++ == 0) throw NoClassDefFoundError("LiteRT") else FakeEngine() }.use { segmenter ->
        expect(ErrorCode.ENGINE) { segmenter.open() }
        runBlocking { segmenter.setImage(photo) }
        check(segmenter.description == "none" && openings == 2)
    }
}

private fun `two calls at once run one after the other in their order`() = test { segmenter, engine ->
    segmenter.setImage(photo)
    runBlocking {
        val taps = (1..8).map { x -> async(start = CoroutineStart.UNDISPATCHED) { segmenter.predict(listOf(Point(5f * x, 1f))) } }
        check(taps.awaitAll().size == 8)
    }
    check(engine.calls == listOf("encode") + (1..8).map { "decode ${4f * it}" }) { engine.calls }
}

private fun `a cancelled setImage returns at once and leaves the earlier photo`() = test { segmenter, engine ->
    segmenter.setImage(photo)
    val begun = CountDownLatch(1)
    val goOn = CountDownLatch(1)
    engine.encoding = {
        begun.countDown()
        check(goOn.await(10, TimeUnit.SECONDS))
    }
    runBlocking {
        val other = MadeUpPhoto(Size(10, 10))
        var seen: Throwable? = null
        val job = launch(Dispatchers.Default) {
            try {
                segmenter.setImage(other)
            } catch (cancelled: CancellationException) {
                seen = cancelled
                throw cancelled
            }
        }
        check(begun.await(10, TimeUnit.SECONDS))
        job.cancelAndJoin() // while the engine is still at it
        check(seen != null)
        goOn.countDown()
        check(segmenter.predict(tap).mask.size == photo.size && segmenter.photo == photo.size)
    }
}

private fun `closing during a call ends the waiting ones and closes the engine once`() {
    val engine = FakeEngine()
    val begun = CountDownLatch(1)
    val goOn = CountDownLatch(1)
    val segmenter = Segmenter(bundle) { engine }
    engine.encoding = {
        begun.countDown()
        check(goOn.await(10, TimeUnit.SECONDS))
    }
    runBlocking {
        val first = async(Dispatchers.Default) { segmenter.setImage(photo) }
        check(begun.await(10, TimeUnit.SECONDS))
        val waiting = async(start = CoroutineStart.UNDISPATCHED) { runCatching { segmenter.predict(tap) } }
        segmenter.close()
        segmenter.close()
        check(engine.closings == 0) { "closed under a running call" }
        goOn.countDown()
        first.await()
        check((waiting.await().exceptionOrNull() as SegmenterError).code == ErrorCode.CLOSED)
    }
    expect(ErrorCode.CLOSED) { segmenter.predict(tap) }
    expect(ErrorCode.CLOSED) { segmenter.setImage(photo) }
    expect(ErrorCode.CLOSED) { segmenter.reset() }
    for (attempt in 1..100) if (engine.closings == 0) Thread.sleep(20)
    check(engine.closings == 1)
}

private fun manifest(change: (String) -> String = { it }) = change(
    """{"format": "mobilesam-export-bundle", "contract_version": "1", "weights": {"sha256": "abc", "notice": null},
    "targets": {"tflite": {"precision": "float32", "options": {}, "contract": {"version": "1", "image_size": 128, "max_points": 8,
    "encoder": {"inputs": [{"name": "image", "dtype": "float32"}]}},
    "files": [{"path": "tflite/e.tflite", "role": "encoder", "size_bytes": 3, "sha256": "x"},
              {"path": "tflite/d.tflite", "role": "decoder", "size_bytes": 4, "sha256": "y"}]}}}""",
).byteInputStream()

private fun `a manifest is believed only where it is checked`() {
    val read = Bundle.read(manifest())
    check(read == Bundle(128, 8, false, "float32", "abc", null, ModelFile("tflite/e.tflite", 3, "x"), ModelFile("tflite/d.tflite", 4, "y")))
    check(Bundle.read(manifest { it.replace("\"max_points\": 8", "\"max_points\": null") }).maxPoints == null)
    check(Bundle.read(manifest { it.replace("float32\"}]", "uint8\"}]") }).takes8Bit)
    for (version in listOf("contract_version\": \"1" to "contract_version\": \"2", "{\"version\": \"1" to "{\"version\": \"2")) {
        expect(ErrorCode.CONTRACT_VERSION) { Bundle.read(manifest { it.replace(version.first, version.second) }) }
    }
    // Whatever else the next version's manifest may look like.
    val next = """{"format": "mobilesam-export-bundle", "contract_version": "2", "models": []}"""
    expect(ErrorCode.CONTRACT_VERSION) { Bundle.read(next.byteInputStream()) }
    val damages = listOf(
        "mobilesam-export-bundle" to "zip", "\"tflite\"" to "\"onnx\"", "128" to "129", "128" to "1e9", "128" to "\"128\"", "8," to "0.5,", "float32\"}]" to "int64\"}]", "[{\"name\": \"image\"" to "[3, {\"name\": \"image\"",
        "tflite/e.tflite" to "../e.tflite", "tflite/e.tflite" to "/e.tflite", "size_bytes\": 3" to "size_bytes\": 3e12",
        "\"decoder\"" to "\"else\"", "\"options\": {}" to "\"options\": {\"single_mask\": true}", "}}}" to "", "{" to "[",
    )
    for ((from, to) in damages) expect(ErrorCode.MODEL_FILE) { Bundle.read(manifest { it.replaceFirst(from, to) }) }
    expect(ErrorCode.MODEL_FILE) { Bundle.read(("[".repeat(100_000)).byteInputStream()) }
    expect(ErrorCode.MODEL_FILE) { Bundle.read((" ".repeat(1 shl 20) + "{}").byteInputStream()) }
}

private fun `a truncated or changed model file is refused`() {
    val file = ModelFile("e.tflite", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") // of "abc"
    checkModelFile(file, "abc".byteInputStream())
    for (content in listOf("ab", "abcd", "abd", "")) expect(ErrorCode.MODEL_FILE) { checkModelFile(file, content.byteInputStream()) }
}

private fun `broken JSON is refused`() {
    check(parseJson(""" {"a": [1, -2.5e1, "x\u0041\n", true, null, {}]} """) == mapOf("a" to listOf(1.0, -25.0, "xA\n", true, null, mapOf<String, Any?>())))
    for (text in listOf("", "{", "[1,]", "{\"a\" 1}", "01", "\"\\u12\"", "\"a\nb\"", "tru", "[1] 2", "{\"a\": 1,}", "\"\\x\"", "NaN", "\"")) {
        check(runCatching { parseJson(text) }.exceptionOrNull() is JsonError) { text }
    }
}

private fun `what is written as JSON is read again`() {
    val value = mapOf("a \"b\" \\ \n" to listOf(1.0, -2.5e-7, true, null, "\u00e9\u0001"), "b" to mapOf("c" to 1e9))
    check(parseJson(toJson(value)) == value) { toJson(value) }
    check(toJson(listOf(1, 20_000_000_000L, 0.5)) == "[1, 20000000000, 0.5]")
    for (none in listOf(Double.NaN, Double.POSITIVE_INFINITY, 'c')) check(runCatching { toJson(none) }.exceptionOrNull() is JsonError)
}

private fun `a cut-out has the photo's colours and the mask as alpha`() {
    val size = Size(2, 2)
    val source = object : PixelSource {
        override val size = size
        override fun readRow(y: Int, into: IntArray) = into.fill(0x40102030 + y)
    }
    val mask = Mask(size, byteArrayOf(1, 0, 0, 1), FloatArray(0))
    val cut = cutout(source, mask)
    check(cut.toList() == listOf(0xff102030.toInt(), 0x102030, 0x102031, 0xff102031.toInt())) { cut.toList() }
    val row = IntArray(2)
    paintMaskRow(mask, 1, -1, 7, row)
    check(row.toList() == listOf(7, -1))
    expect(ErrorCode.IMAGE) { cutout(source, Mask(Size(1, 2), ByteArray(2), FloatArray(0))) }
}
