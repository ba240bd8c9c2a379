package mobilesam

import java.util.concurrent.Executors
import kotlin.coroutines.cancellation.CancellationException
import kotlin.coroutines.resumeWithException
import kotlinx.coroutines.suspendCancellableCoroutine

/** A mask and the model's own estimate of its IoU. */
data class Prediction(val mask: Mask, val score: Float)

/** Milliseconds of the last calls. */
data class Timings(val resizeMs: Double = 0.0, val encodeMs: Double = 0.0, val decodeMs: Double = 0.0, val maskMs: Double = 0.0)

/**
 * One photo, many prompts, one mask for each: `setImage`, `predict`, `reset`.
 *
 * Calls queue and run one at a time on a thread of the segmenter's own, in the order in which they were made. A cancelled call returns at
 * once; what the engine has begun it finishes, and nobody sees it. After an engine's failure the next call opens another engine.
 */
class Segmenter(val bundle: Bundle, private val openEngine: () -> Engine) : AutoCloseable {
    private class CurrentPhoto(val size: Size, val embedding: FloatArray)

    private val thread = Executors.newSingleThreadExecutor { Thread(it, "mobilesam").apply { isDaemon = true } }
    private var closed = false // guarded by this

    // Of the thread:
    private var engine: Engine? = null
    private var current: CurrentPhoto? = null

    /** What runs where, for people; empty before the first call. */
    @Volatile
    var description: String = ""
        private set

    @Volatile
    var timings: Timings = Timings()
        private set

    /** Size of the photo that is set, or null. */
    @Volatile
    var photo: Size? = null
        private set

    /** Open the models now instead of in the first `setImage`. */
    suspend fun open(): Unit = queue { engine() }

    /** Embed an upright photo; later predictions are about it. If this fails, the earlier photo stays set. */
    suspend fun setImage(photo: PixelSource): Unit = queue { checkActive ->
        val size = photo.size
        checkPhotoSize(size)
        val begun = System.nanoTime()
        val resized = guarded(ErrorCode.IMAGE, "the photo's pixels cannot be read; give a bitmap that is not recycled") {
            resizeLongestSide(photo, bundle.imageSize)
        }
        checkActive()
        val ready = System.nanoTime()
        val embedding = inEngine { it.encode(resized) }
        checkActive()
        timings = timings.copy(resizeMs = milliseconds(begun, ready), encodeMs = milliseconds(ready, System.nanoTime()))
        current = CurrentPhoto(size, embedding)
        this.photo = size
    }

    /** The mask that a prompt means and the model's own estimate of its IoU; see apps/README.md. */
    suspend fun predict(points: List<Point> = emptyList(), box: Box? = null, previousMask: Mask? = null): Prediction =
        queue { checkActive ->
            val photo = current ?: throw SegmenterError(ErrorCode.NO_IMAGE, "no photo is set; call setImage(photo) first")
            val logits = previousMask?.logits
            checkPrompt(points, box, logits != null, photo.size, bundle.maxPoints)
            val low = bundle.imageSize / 4
            if (logits != null && logits.size != low * low) {
                throw SegmenterError(
                    ErrorCode.MASK_SIZE,
                    "got a previous mask with ${logits.size} logits, expected $low x $low; pass one from this model",
                )
            }
            val begun = System.nanoTime()
            val slots = promptSlots(points, box, photo.size, bundle.imageSize, bundle.maxPoints)
            val decoded = inEngine { it.decode(photo.embedding, slots, logits) }
            checkActive()
            val ready = System.nanoTime()
            val row = bestRow(isAmbiguous(points, box, logits != null), decoded.iouPredictions)
            val chosen = decoded.logits.copyOfRange(row * low * low, (row + 1) * low * low)
            val mask = guarded(ErrorCode.ENGINE, "the mask cannot be made") { logitsToMask(chosen, bundle.imageSize, photo.size) }
            timings = timings.copy(decodeMs = milliseconds(begun, ready), maskMs = milliseconds(ready, System.nanoTime()))
            Prediction(mask, decoded.iouPredictions[row])
        }

    /** Forget the photo. */
    fun reset() {
        submit {
            current = null
            photo = null
        }
    }

    /** Release both models, when the call that runs is done. Calls that wait, and all later ones, are `closed`. */
    override fun close() {
        synchronized(this) {
            if (closed) return
            closed = true
            thread.execute {
                current = null
                photo = null
                closeEngine()
            }
            thread.shutdown()
        }
    }

    private fun engine(): Engine = engine ?: guarded(ErrorCode.ENGINE, "LiteRT cannot load the models") { openEngine() }.also {
        engine = it
        description = it.description
    }

    /** Run a model. A runtime that failed once may be in any state: it is closed. */
    private fun <T> inEngine(run: (Engine) -> T): T {
        val engine = engine()
        try {
            return guarded(ErrorCode.ENGINE, "the engine failed; try again, with a CPU encoder if it was the GPU") { run(engine) }
        } catch (error: SegmenterError) {
            closeEngine()
            throw error
        }
    }

    private fun closeEngine() {
        val closing = engine
        engine = null
        closing?.close()
    }

    private fun checkOpen() {
        if (synchronized(this) { closed }) throw SegmenterError(ErrorCode.CLOSED, "the segmenter is closed; make another")
    }

    private fun submit(task: () -> Unit) = synchronized(this) {
        checkOpen()
        thread.execute(task)
    }

    /** Run a call on the thread when those before it are done. */
    private suspend fun <T> queue(call: (checkActive: () -> Unit) -> T): T = suspendCancellableCoroutine { caller ->
        val checkActive = { if (!caller.isActive) throw CancellationException("cancelled by the caller") }
        try {
            submit {
                if (caller.isActive) {
                    caller.resumeWith(
                        runCatching {
                            checkOpen()
                            call(checkActive)
                        },
                    )
                }
            }
        } catch (error: SegmenterError) {
            caller.resumeWithException(error)
        }
    }
}

/** Say it in one sentence; running out of memory too, as a large photo may do it, and a runtime that is not there. */
private inline fun <T> guarded(code: ErrorCode, told: String, run: () -> T): T =
    try {
        run()
    } catch (error: Exception) {
        throw asSegmenterError(error, code, told)
    } catch (error: LinkageError) {
        throw asSegmenterError(error, ErrorCode.ENGINE, "LiteRT's library is not on this device")
    } catch (error: OutOfMemoryError) {
        throw asSegmenterError(error, ErrorCode.ENGINE, "not enough memory; give a smaller photo")
    }

private fun milliseconds(from: Long, to: Long): Double = (to - from) / 1e6
