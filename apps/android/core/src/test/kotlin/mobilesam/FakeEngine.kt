package mobilesam

import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout

internal const val SIDE = 32
internal val bundle = Bundle(SIDE, 8, false, "float32", "0".repeat(64), null, ModelFile("e", 1, ""), ModelFile("d", 1, ""))

/** Counts its calls, and fails or waits when it is told to. */
internal class FakeEngine : Engine {
    override val description = "none"
    var closings = 0
    var failing: Throwable? = null
    var encoding: () -> Unit = {}
    val calls = ArrayList<String>()

    override fun encode(photo: RgbImage): FloatArray {
        encoding()
        failing?.let { throw it }
        calls += "encode"
        return floatArrayOf(photo.size.width.toFloat())
    }

    /** Row r is 1 everywhere from column r on, else -1. */
    override fun decode(embedding: FloatArray, slots: Slots, mask: FloatArray?): Decoded {
        failing?.let { throw it }
        calls += "decode ${slots.coords[0]}"
        val low = SIDE / 4
        return Decoded(FloatArray(4 * low * low) { if (it % low >= it / (low * low)) 1f else -1f }, floatArrayOf(0.5f, 0.2f, 0.9f, 0.9f))
    }

    override fun close() {
        closings++
    }
}

/** The call must end in an error of that code whose message is one line. */
internal fun expect(code: ErrorCode, call: suspend () -> Unit) {
    val got = try {
        runBlocking { withTimeout(10_000) { call() } }
        null
    } catch (error: SegmenterError) {
        check(error.message.isNotBlank() && '\n' !in error.message)
        error.code
    }
    check(got == code) { "got $got, expected $code" }
}
