package mobilesam

import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.JniHandle
import java.io.File
import java.security.MessageDigest
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.CoroutineStart
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.cancel
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.delay
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import mobilesam.android.LiteRtEngine
import mobilesam.android.OpenModel
import mobilesam.android.loadSegmenter

/** What goes wrong on a phone, with a bundle's real models: `FaultsTestKt BUNDLE`. After each test no native handle is left. */
fun main(arguments: Array<String>) = runBlocking {
    val folder = File(arguments[0])
    `damaged bundles are refused in one sentence`(folder)
    noHandles()
    `a GPU is asked for the encoder once`(folder)
    noHandles()
    `a GPU that is lost costs one call and the CPU goes on`(folder)
    noHandles()
    `two taps at once give what they give one by one`(folder)
    noHandles()
    `a screen that is destroyed during an encode leaves nothing`(folder)
    noHandles()
    `loading that is cancelled leaves nothing`(folder)
    noHandles()
}

private val photo = MadeUpPhoto(Size(200, 300))
private val taps = listOf(listOf(Point(60.5f, 70.5f)), listOf(Point(150.5f, 200.5f)))

private fun bundleIn(folder: File) = Bundle.read(folder.resolve("manifest.json").inputStream())

private suspend fun `damaged bundles are refused in one sentence`(bundle: File) {
    val damaged = kotlin.io.path.createTempDirectory().toFile()
    try {
        fun refused(code: ErrorCode, word: String) {
            val got = runCatching { runBlocking { loadSegmenter(damaged, threads = 1).close() } }.exceptionOrNull() as? SegmenterError
            println("${got?.code?.text}: ${got?.message}")
            check(got?.code == code && word in got.message && '\n' !in got.message)
        }
        refused(ErrorCode.MODEL_FILE, "manifest.json is missing")
        val whole = bundle.resolve("manifest.json").readText()
        val manifest = damaged.resolve("manifest.json")
        manifest.writeText(whole.replace("\"contract_version\": \"1\"", "\"contract_version\": \"2\""))
        refused(ErrorCode.CONTRACT_VERSION, "version 2")
        manifest.writeText(whole)
        val read = bundleIn(bundle)
        bundle.resolve(read.encoder.path).copyTo(damaged.resolve(read.encoder.path))
        refused(ErrorCode.MODEL_FILE, "${read.decoder.path} is missing")
        val file = damaged.resolve(read.decoder.path)
        val decoder = bundle.resolve(read.decoder.path).readBytes()
        file.writeBytes(decoder.copyOf(decoder.size / 2))
        refused(ErrorCode.MODEL_FILE, "${decoder.size / 2} bytes instead of ${decoder.size}")
        decoder[decoder.size / 2] = (decoder[decoder.size / 2] + 1).toByte()
        file.writeBytes(decoder)
        refused(ErrorCode.MODEL_FILE, "sha256")
        // A file that passes the manifest and is no model: the engine refuses it.
        val other = "no model".toByteArray()
        val digest = MessageDigest.getInstance("SHA-256").digest(other).joinToString("") { "%02x".format(it) }
        file.writeBytes(other)
        manifest.writeText(whole.replace(read.decoder.sha256, digest).replace("${read.decoder.sizeBytes}", "${other.size}"))
        refused(ErrorCode.ENGINE, "LiteRT cannot load the models")
    } finally {
        damaged.deleteRecursively()
    }
}

private fun `a GPU is asked for the encoder once`(folder: File) {
    val asked = ArrayList<Accelerator>()
    val opener = LiteRtEngine.opener(bundleIn(folder), gpu = true, threads = 1) { path, options, environment ->
        asked += options.accelerators
        CompiledModel.create(folder.resolve(path).path, options, environment)
    }
    opener().close()
    check(asked == listOf(Accelerator.GPU, Accelerator.CPU, Accelerator.CPU)) { asked }
    opener().close()
    check(asked.drop(3) == listOf(Accelerator.CPU, Accelerator.CPU)) { asked }
}

/** A "GPU" that is a CPU here, and whose model is gone between two calls, as after a driver's crash. */
private suspend fun `a GPU that is lost costs one call and the CPU goes on`(folder: File) {
    val onGpu = ArrayList<CompiledModel>()
    val open: OpenModel = { path, options, environment ->
        val isGpu = Accelerator.GPU in options.accelerators
        val given = if (isGpu) CompiledModel.Options.CPU else options
        CompiledModel.create(folder.resolve(path).path, given, environment).also { if (isGpu) onGpu += it }
    }
    val bundle = bundleIn(folder)
    Segmenter(bundle, LiteRtEngine.opener(bundle, gpu = true, threads = 1, open)).use { segmenter ->
        segmenter.setImage(photo)
        check("GPU encoder" in segmenter.description)
        val before = segmenter.predict(taps[0]).mask
        onGpu.single().close()
        val lost = runCatching { segmenter.setImage(photo) }.exceptionOrNull() as SegmenterError
        println("${lost.code.text}: ${lost.message}")
        check(lost.code == ErrorCode.ENGINE)
        check(segmenter.predict(taps[0]).mask.data.contentEquals(before.data)) // the photo is still set
        segmenter.setImage(photo)
        check(segmenter.predict(taps[0]).mask.data.contentEquals(before.data))
        check("CPU encoder" in segmenter.description && onGpu.size == 1) { segmenter.description }
    }
}

private suspend fun `two taps at once give what they give one by one`(folder: File) {
    loadSegmenter(folder, gpu = false, threads = 1).use { segmenter ->
        segmenter.setImage(photo)
        val oneByOne = taps.map { segmenter.predict(it) }
        val scope = CoroutineScope(Dispatchers.Default)
        val atOnce = taps.map { tap -> scope.async { segmenter.predict(tap) } }.map { it.await() }
        for ((a, b) in oneByOne.zip(atOnce)) check(a.score == b.score && a.mask.data.contentEquals(b.mask.data))
        check(!oneByOne[0].mask.data.contentEquals(oneByOne[1].mask.data)) // so that an exchange would be seen
    }
}

/** What MainActivity.onDestroy does, while the encoder runs: here it runs again and again until the test has seen what it wants. */
private suspend fun `a screen that is destroyed during an encode leaves nothing`(folder: File) {
    val bundle = bundleIn(folder)
    val begun = CountDownLatch(1)
    val seen = CountDownLatch(1)
    val ended = CountDownLatch(1)
    val open = LiteRtEngine.opener(bundle, gpu = false, threads = 1) { path, options, environment ->
        CompiledModel.create(folder.resolve(path).path, options, environment)
    }
    val segmenter = Segmenter(bundle) {
        val engine = open()
        object : Engine by engine {
            override fun encode(photo: RgbImage): FloatArray {
                begun.countDown()
                while (seen.count > 0) engine.encode(photo)
                return engine.encode(photo).also { ended.countDown() }
            }
        }
    }
    val screen = CoroutineScope(Dispatchers.Default)
    val encoding = screen.launch { segmenter.setImage(photo) }
    check(begun.await(10, TimeUnit.SECONDS))
    val waiting = screen.launch(start = CoroutineStart.UNDISPATCHED) { segmenter.predict(taps[0]) }
    screen.cancel()
    segmenter.close()
    encoding.join() // at once, while the engine is still at it; and so does the tap that waited
    waiting.join()
    check(encoding.isCancelled && waiting.isCancelled && JniHandle.open > 0)
    seen.countDown()
    check(ended.await(10, TimeUnit.SECONDS)) // what the engine has begun it finishes
    check((runCatching { segmenter.predict(taps[0]) }.exceptionOrNull() as SegmenterError).code == ErrorCode.CLOSED)
}

private suspend fun `loading that is cancelled leaves nothing`(folder: File) {
    val screen = CoroutineScope(Dispatchers.Default)
    for (milliseconds in longArrayOf(0, 5, 20, 60)) {
        val loading = screen.launch { loadSegmenter(folder, gpu = false, threads = 1).close() }
        delay(milliseconds)
        loading.cancelAndJoin()
        noHandles()
    }
}
