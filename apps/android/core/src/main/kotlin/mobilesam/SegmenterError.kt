package mobilesam

/**
 * What went wrong; the same strings in every host (apps/README.md). The missing one, `cancelled`, is the coroutine's own
 * CancellationException here.
 */
enum class ErrorCode(val text: String) {
    NO_IMAGE("no_image"),
    NO_PROMPT("no_prompt"),
    POINT_OUTSIDE("point_outside"),
    POINT_LABEL("point_label"),
    BOX_CORNERS("box_corners"),
    TOO_MANY_POINTS("too_many_points"),
    MASK_SIZE("mask_size"),
    IMAGE("image"),
    CONTRACT_VERSION("contract_version"),
    MODEL_FILE("model_file"),
    ENGINE("engine"),
    CLOSED("closed"),
}

/** One sentence that says what was got and what to do next, and a code to switch on. */
class SegmenterError(val code: ErrorCode, override val message: String, cause: Throwable? = null) :
    Exception(message, cause)

/** An unknown throwable as a SegmenterError; what is none yet gets `code`, and `told` before its own words. */
internal fun asSegmenterError(thrown: Throwable, code: ErrorCode, told: String): SegmenterError {
    if (thrown is SegmenterError) return thrown
    val reason = thrown.message?.lineSequence()?.first() ?: thrown.javaClass.simpleName
    return SegmenterError(code, "$told ($reason)", thrown)
}
