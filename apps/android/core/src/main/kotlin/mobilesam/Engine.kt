package mobilesam

/** Both models of a bundle in one runtime. Made, used and closed on one thread; calls never overlap. */
interface Engine : AutoCloseable {
    /** The engine, a comma and what runs where, for people: "LiteRT 2.3.0, GPU encoder, CPU decoder". */
    val description: String

    /** Embed an upright photo that was resized to the model frame's scale. */
    fun encode(photo: RgbImage): FloatArray

    /** `mask` holds S/4 x S/4 logits, or null. `embedding` is what `encode` gave; the same object is not copied again. */
    fun decode(embedding: FloatArray, slots: Slots, mask: FloatArray?): Decoded
}

/** 4 x S/4 x S/4 logits, one map after the other, and 4 predicted IoUs. */
class Decoded(val logits: FloatArray, val iouPredictions: FloatArray)
