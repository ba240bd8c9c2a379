package mobilesam

/** A tap, in the upright photo's pixels; a pixel's centre is at .5. `label` 1 is on the object, 0 not on it. */
data class Point(val x: Float, val y: Float, val label: Int = 1)

/** Around the object, in the photo's pixels. */
data class Box(val x0: Float, val y0: Float, val x1: Float, val y1: Float)

/** The decoder's point inputs: x, y of each slot in model-frame pixels, and its label. */
class Slots(val coords: FloatArray, val labels: FloatArray)

/** Whether the best of the three alternatives is wanted: one foreground point and nothing else. */
fun isAmbiguous(points: List<Point>, box: Box?, hasMask: Boolean): Boolean =
    points.size == 1 && points[0].label == 1 && box == null && !hasMask

/** Which of the decoder's four masks to show; the first of equal ones. */
fun bestRow(multimask: Boolean, iouPredictions: FloatArray): Int {
    if (!multimask) return 0
    var best = 1
    for (row in 2 until MASK_COUNT) if (iouPredictions[row] > iouPredictions[best]) best = row
    return best
}

/** Throw a SegmenterError for a prompt without meaning on this photo. The order of checks is part of the host API. */
fun checkPrompt(points: List<Point>, box: Box?, hasMask: Boolean, photo: Size, maxPoints: Int?) {
    if (points.isEmpty() && box == null && !hasMask) {
        throw SegmenterError(ErrorCode.NO_PROMPT, "got no prompt; give points, a box or a previous mask")
    }
    fun checkInside(x: Float, y: Float) {
        if (x >= 0 && x <= photo.width && y >= 0 && y <= photo.height) return // NaN is not inside
        throw SegmenterError(
            ErrorCode.POINT_OUTSIDE,
            "($x, $y) is outside the photo of ${photo.width} x ${photo.height} pixels; give points inside it",
        )
    }
    for (point in points) checkInside(point.x, point.y)
    if (box != null) {
        checkInside(box.x0, box.y0)
        checkInside(box.x1, box.y1)
    }
    for ((_, _, label) in points) {
        if (label != 0 && label != 1) {
            throw SegmenterError(ErrorCode.POINT_LABEL, "got point label $label, expected 1 on the object or 0 not on it")
        }
    }
    if (box != null && !(box.x0 < box.x1 && box.y0 < box.y1)) {
        throw SegmenterError(
            ErrorCode.BOX_CORNERS,
            "got box ${box.x0}, ${box.y0}, ${box.x1}, ${box.y1}, expected x0 < x1 and y0 < y1; swap its corners",
        )
    }
    val slots = points.size + if (box != null) 2 else if (points.isNotEmpty()) 1 else 0
    if (maxPoints != null && slots > maxPoints) {
        throw SegmenterError(
            ErrorCode.TOO_MANY_POINTS,
            "got a prompt of $slots slots (a box takes two, a prompt without box one more than its points), " +
                "the decoder holds $maxPoints; give fewer points",
        )
    }
}

/**
 * The decoder's point inputs for a checked prompt.
 *
 * Points without a box are followed by one padding point; a box is two points labelled as its corners; a mask alone has
 * absent slots only. `maxPoints` null, a decoder for any number of points, gives no more slots than needed.
 */
fun promptSlots(points: List<Point>, box: Box?, photo: Size, imageSize: Int, maxPoints: Int?): Slots {
    val resized = resizedSize(photo, imageSize)
    val used = if (box != null) points.size + 2 else points.size + 1
    val count = maxPoints ?: used
    val coords = FloatArray(2 * count)
    val labels = FloatArray(count) { Label.ABSENT }
    fun set(slot: Int, x: Float, y: Float, label: Float) {
        coords[2 * slot] = (x * (resized.width.toDouble() / photo.width)).toFloat()
        coords[2 * slot + 1] = (y * (resized.height.toDouble() / photo.height)).toFloat()
        labels[slot] = label
    }
    points.forEachIndexed { slot, (x, y, label) -> set(slot, x, y, label.toFloat()) }
    if (box != null) {
        set(points.size, box.x0, box.y0, Label.BOX_TOP_LEFT)
        set(points.size + 1, box.x1, box.y1, Label.BOX_BOTTOM_RIGHT)
    } else if (points.isNotEmpty()) {
        set(points.size, 0f, 0f, Label.PADDING)
    }
    return Slots(coords, labels)
}
