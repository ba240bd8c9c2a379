package mobilesam

import com.google.ai.edge.litert.JniHandle
import java.io.File
import kotlinx.coroutines.runBlocking
import mobilesam.android.loadSegmenter

/**
 * A bundle's real models through the adapter: `RuntimeTestKt BUNDLE OUT`. BUNDLE has vectors/. Writes each case's mask to
 * OUT/PHOTO-CASE.u8 and the receipt of a measurement to OUT/receipt.json.
 */
fun main(arguments: Array<String>) {
    val (folder, out) = arguments.map(::File)
    runBlocking {
        loadSegmenter(folder, gpu = true, threads = 1).use { segmenter -> // there is no GPU: it must fall back
            println(segmenter.description)
            check("CPU encoder" in segmenter.description)
            val vectors = BundleVectors.read(segmenter.bundle) { File(folder, "vectors/$it").inputStream() }
            val least = vectors.leastIou ?: 0.999
            for (photo in vectors.photos) {
                segmenter.setImage(RgbSource(vectors.photo(photo)))
                for (asked in photo.cases) {
                    val (mask, score) = segmenter.predict(asked.points, asked.box, vectors.previousMask(asked))
                    File(out, "${photo.name}-${asked.name}.u8".replace(' ', '_')).writeBytes(mask.data)
                    val iou = maskIou(mask.data, vectors.mask(asked))
                    val off = kotlin.math.abs(score - asked.score)
                    println("${photo.name}, ${asked.name}: IoU %.5f, score off by %.5f".format(iou, off))
                    check(iou >= least && off <= 0.01)
                }
            }
            val device = Device("Java ${System.getProperty("java.version")}", System.getProperty("os.name"), desktop = true)
            val receipt = measure(segmenter, { File(folder, "vectors/$it").inputStream() }, device) { _, _, _ -> }
            File(out, "receipt.json").writeText(toJson(receipt))
        }
        noHandles()
    }
}

/** A closed segmenter's thread may still be at it: wait, and fail if a native handle is left. */
internal fun noHandles() {
    for (attempt in 1..250) if (JniHandle.open > 0) Thread.sleep(20)
    check(JniHandle.open == 0) { "${JniHandle.open} handles are left" }
}
