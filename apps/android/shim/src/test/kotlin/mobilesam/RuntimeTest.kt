package mobilesam

import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.JniHandle
import java.io.File
import kotlin.system.exitProcess
import kotlinx.coroutines.runBlocking
import mobilesam.android.LiteRtEngine
import mobilesam.android.loadSegmenter

/**
 * A bundle's real models through the adapter: `RuntimeTestKt BUNDLE OUT`. BUNDLE has vectors/. Writes each case's mask to
 * OUT/PHOTO-CASE.u8, says IoUs, scores and memory; exit status 1 if one is too low.
 */
fun main(arguments: Array<String>) {
    val bundle = File(arguments[0])
    val vectors = Vectors(File(bundle, "vectors"))
    val target = vectors.root.case("bundle").case("targets").case("tflite")
    val least = if (target.has("least_iou")) target.number("least_iou") else 0.999
    var failures = 0
    runBlocking {
        refuse(bundle)
        check(JniHandle.open == 0) { "${JniHandle.open} handles are open after models that could not be loaded" }

        fallBack(bundle)
        check(JniHandle.open == 0) { "${JniHandle.open} handles are open after engines that were closed" }

        val segmenter = loadSegmenter(bundle, gpu = true, threads = 1) // there is none: it must fall back
        println(segmenter.description)
        check("CPU encoder" in segmenter.description)
        val handles = JniHandle.open
        for (photo in vectors.root.case("bundle").cases("photos")) {
            segmenter.setImage(StoredPhoto(photo.case("pixels").ints("shape"), vectors.bytes(photo.case("pixels"))))
            for (case in photo.cases("cases")) {
                val size = segmenter.photo!!
                val previous = if (case.has("previous_mask")) vectors.floats(case.case("previous_mask")) else null
                val (mask, score) = segmenter.predict(case.points(), case.box(), previous?.let { Mask(size, ByteArray(0), it) })
                File(arguments[1], "${photo.name}-${case.name}.u8".replace(' ', '_')).writeBytes(mask.data)
                val iou = maskIou(mask.data, vectors.bytes(case.case("mask")))
                val off = kotlin.math.abs(score - case.number("score"))
                println("${photo.name}, ${case.name}: IoU %.5f, score off by %.5f".format(iou, off))
                if (iou < least || off > 0.01) failures++
            }
        }

        // The heap is fixed by the caller, so that what grows is native.
        val tap = listOf(Point(40.5f, 30.5f))
        var mask = segmenter.predict(tap).mask
        repeat(50) { mask = segmenter.predict(tap, previousMask = mask).mask }
        val before = residentBytes()
        val begun = System.nanoTime()
        repeat(500) { mask = segmenter.predict(tap, previousMask = mask).mask }
        val milliseconds = (System.nanoTime() - begun) / 500 / 1e6
        val grown = (residentBytes() - before) / 1e6
        println("500 taps: %.1f MB more, %.1f ms a tap; %.0f MB in all".format(grown, milliseconds, residentBytes() / 1e6))
        if (grown > MOST_GROWTH_MB) failures++
        check(JniHandle.open == handles) { "${JniHandle.open - handles} handles more than before the first photo" }
        segmenter.close()
        for (attempt in 1..100) if (JniHandle.open > 0) Thread.sleep(20)
        check(JniHandle.open == 0) { "${JniHandle.open} handles are left" }
    }
    exitProcess(if (failures == 0) 0 else 1)
}

/** Buffers made anew for each tap cost 90 kB a tap at S = 128, 45 MB here; what a JVM's own threads and compiler take is a few. */
private const val MOST_GROWTH_MB = 10.0

/** A GPU is asked for the encoder once; without one, and after a failure, it is the CPU. */
private fun fallBack(folder: File) {
    val asked = ArrayList<Accelerator>()
    val opener = LiteRtEngine.opener(Bundle.read(folder.resolve("manifest.json").inputStream()), gpu = true, threads = 1) { path, options, environment ->
        asked += options.accelerators
        CompiledModel.create(folder.resolve(path).path, options, environment)
    }
    opener().close()
    check(asked == listOf(Accelerator.GPU, Accelerator.CPU, Accelerator.CPU)) { asked }
    opener().close()
    check(asked.drop(3) == listOf(Accelerator.CPU, Accelerator.CPU)) { asked }
}

/** Damaged bundles are refused in one sentence. */
private suspend fun refuse(bundle: File) {
    val damaged = kotlin.io.path.createTempDirectory().toFile()
    try {
        suspend fun code(): ErrorCode? = try {
            loadSegmenter(damaged, threads = 1).close()
            null
        } catch (error: SegmenterError) {
            println("${error.code.text}: ${error.message}")
            error.code
        }
        check(code() == ErrorCode.MODEL_FILE) // nothing is there
        bundle.resolve("manifest.json").copyTo(damaged.resolve("manifest.json"))
        val read = Bundle.read(bundle.resolve("manifest.json").inputStream())
        bundle.resolve(read.encoder.path).copyTo(damaged.resolve(read.encoder.path))
        check(code() == ErrorCode.MODEL_FILE) // no decoder
        val decoder = bundle.resolve(read.decoder.path).readBytes()
        damaged.resolve(read.decoder.path).writeBytes(decoder.copyOf(decoder.size / 2))
        check(code() == ErrorCode.MODEL_FILE) // truncated
        decoder[decoder.size / 2] = (decoder[decoder.size / 2] + 1).toByte()
        damaged.resolve(read.decoder.path).writeBytes(decoder)
        check(code() == ErrorCode.MODEL_FILE) // changed
        // A file that passes the manifest and is no model: the engine refuses it.
        val other = "no model".toByteArray()
        val digest = java.security.MessageDigest.getInstance("SHA-256").digest(other).joinToString("") { "%02x".format(it) }
        damaged.resolve(read.decoder.path).writeBytes(other)
        val manifest = damaged.resolve("manifest.json")
        manifest.writeText(manifest.readText().replace(read.decoder.sha256, digest).replace("${read.decoder.sizeBytes}", "${other.size}"))
        check(code() == ErrorCode.ENGINE)
    } finally {
        damaged.deleteRecursively()
    }
}

private class StoredPhoto(shape: IntArray, private val data: ByteArray) : PixelSource {
    override val size = Size(shape[1], shape[0])

    override fun readRow(y: Int, into: IntArray) {
        for (x in 0 until size.width) {
            val at = 3 * (y * size.width + x)
            into[x] = (data[at].toInt() and 0xff shl 16) or (data[at + 1].toInt() and 0xff shl 8) or (data[at + 2].toInt() and 0xff)
        }
    }
}

private fun residentBytes(): Long =
    File("/proc/self/statm").readText().split(" ")[1].toLong() * 4096
