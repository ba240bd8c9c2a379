package mobilesam

import java.io.File
import java.io.InputStream
import java.time.Instant
import java.time.temporal.ChronoUnit
import kotlin.math.ceil
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext

private const val RUNS = 20
private const val LONGEST_LINE = 300

/** What only the app knows of where it runs. */
class Device(val name: String, val system: String, val desktop: Boolean)

/**
 * The vectors' masks on this device, and timed photos and taps, as a receipt (apps/README.md): give it to `toJson`.
 *
 * The segmenter's photo afterwards is the first one of the vectors.
 *
 * @param open a file of the vectors, by its path relative to vectors.json.
 * @param progress is told after each step, in the caller's own context.
 */
suspend fun measure(
    segmenter: Segmenter,
    open: (path: String) -> InputStream,
    device: Device,
    progress: (done: Int, of: Int, what: String) -> Unit,
): Map<String, Any?> {
    val vectors = withContext(Dispatchers.IO) { BundleVectors.read(segmenter.bundle, open) }
    val steps = vectors.photos.sumOf { 1 + it.cases.size } + 2 * RUNS
    var done = 0
    fun step(what: String) = progress(++done, steps, what)

    var cases = 0
    var lowest = 1.0
    var worst = ""
    for (photo in vectors.photos) {
        segmenter.setImage(RgbSource(withContext(Dispatchers.IO) { vectors.photo(photo) }))
        step(photo.name)
        for (asked in photo.cases) {
            val previous = withContext(Dispatchers.IO) { vectors.previousMask(asked) }
            val (mask) = segmenter.predict(asked.points, asked.box, previous)
            val iou = withContext(Dispatchers.IO) { maskIou(mask.data, vectors.mask(asked)) }
            cases++
            if (iou < lowest || worst.isEmpty()) {
                lowest = iou
                worst = "${photo.name}, ${asked.name}"
            }
            step("${photo.name}, ${asked.name}: IoU %.5f".format(iou))
        }
    }

    val first = RgbSource(withContext(Dispatchers.IO) { vectors.photo(vectors.photos.first()) })
    val middle = listOf(Point(first.size.width / 2f, first.size.height / 2f))
    val encodes = times({ segmenter.setImage(first) }) { step("photo $it of $RUNS") }
    val taps = times({ segmenter.predict(middle) }) { step("tap $it of $RUNS") }
    return mapOf(
        "format" to "mobilesam-receipt",
        "format_version" to "1",
        "device" to line(device.name),
        "system" to line(device.system),
        "desktop" to device.desktop,
        "engine" to segmenter.description.substringBefore(", "),
        "compute_unit" to segmenter.description.substringAfter(", "),
        "image_size" to segmenter.bundle.imageSize,
        "precision" to segmenter.bundle.precision,
        "weights_sha256" to segmenter.bundle.weightsSha256,
        "contract_version" to CONTRACT_VERSION,
        "encode_ms" to percentiles(encodes),
        "predict_ms" to percentiles(taps),
        "memory_mb" to peakMemoryMb(File("/proc/self/status")),
        "cases" to cases,
        "lowest_mask_iou" to Math.round(lowest * 1e5) / 1e5,
        "worst_case" to worst,
        "measured_at" to Instant.now().truncatedTo(ChronoUnit.SECONDS).toString(),
    )
}

/** Milliseconds of each of 20 calls after one that is not counted, off the caller's thread, which has a screen to draw. */
private suspend fun times(call: suspend () -> Unit, each: (run: Int) -> Unit): List<Double> {
    call()
    return (1..RUNS).map { run ->
        val milliseconds = withContext(Dispatchers.Default) {
            val begun = System.nanoTime()
            call()
            (System.nanoTime() - begun) / 1e6
        }
        each(run)
        milliseconds
    }
}

private fun percentiles(times: List<Double>): Map<String, Any?> =
    mapOf("p50" to percentile(times, 0.5), "p90" to percentile(times, 0.9), "runs" to times.size)

/** By the nearest rank, to a hundredth. */
internal fun percentile(times: List<Double>, p: Double): Double =
    Math.round(times.sorted()[ceil(p * times.size).toInt() - 1] * 100) / 100.0

/** The most memory that this process has had, as the Linux kernel tells it, or null. */
internal fun peakMemoryMb(status: File): Int? {
    val lines = runCatching { status.readLines() }.getOrDefault(emptyList())
    val kibibytes = lines.firstOrNull { it.startsWith("VmHWM:") }?.filter { it.isDigit() }?.toLongOrNull()
    return kibibytes?.let { Math.round(it * 1024 / 1e6).toInt() }
}

/** What a receipt takes: one line of text. */
private fun line(text: String): String =
    text.map { if (it.isISOControl()) ' ' else it }.joinToString("").trim().take(LONGEST_LINE).ifEmpty { "not said" }
