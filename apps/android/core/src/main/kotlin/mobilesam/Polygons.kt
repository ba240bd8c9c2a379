package mobilesam

private const val EAST = 0
private const val SOUTH = 1
private val STEP_X = intArrayOf(1, 0, -1, 0)
private val STEP_Y = intArrayOf(0, 1, 0, -1)

/** For each direction the pixel to the right of the crack that leaves a corner, as an offset from the corner. */
private val RIGHT_X = intArrayOf(0, -1, -1, 0)
private val RIGHT_Y = intArrayOf(0, 0, -1, -1)

/** And the one to the left. */
private val LEFT_X = intArrayOf(0, 0, -1, -1)
private val LEFT_Y = intArrayOf(-1, 0, 0, -1)

/** What may follow a crack: right, straight on, left. */
private val TURNS = intArrayOf(1, 0, 3)

/**
 * The mask's outlines along the cracks between pixels, mask on the right-hand side: outer rings clockwise (y points
 * down), holes against. Pixels that touch at a corner only are apart. Fill them by either rule to get the mask back.
 *
 * A ring is its corners x, y, x, y and so on, not repeating the first.
 */
fun polygons(mask: Mask): List<IntArray> {
    val (width, height) = mask.size
    fun inside(x: Int, y: Int) = x in 0 until width && y in 0 until height && mask.data[y * width + x] != 0.toByte()
    fun isEdge(x: Int, y: Int, direction: Int) =
        inside(x + RIGHT_X[direction], y + RIGHT_Y[direction]) && !inside(x + LEFT_X[direction], y + LEFT_Y[direction])
    // One bit a direction for each corner whose crack has been walked.
    val walked = ByteArray((width + 1) * (height + 1))
    fun isWalked(x: Int, y: Int, direction: Int) = walked[y * (width + 1) + x].toInt() shr direction and 1 != 0

    fun walk(startX: Int, startY: Int, first: Int): IntArray {
        val ring = ArrayList<Int>()
        var x = startX
        var y = startY
        var direction = first
        var before = -1
        while (!isWalked(x, y, direction)) {
            val corner = y * (width + 1) + x
            walked[corner] = (walked[corner].toInt() or (1 shl direction)).toByte()
            if (direction != before) {
                ring.add(x)
                ring.add(y)
            }
            x += STEP_X[direction]
            y += STEP_Y[direction]
            before = direction
            direction = TURNS.map { (before + it) % 4 }.first { isEdge(x, y, it) }
        }
        return ring.toIntArray()
    }

    val rings = ArrayList<IntArray>()
    for (y in 0..height) {
        for (x in 0..width) {
            for (first in EAST..SOUTH) if (!isWalked(x, y, first) && isEdge(x, y, first)) rings.add(walk(x, y, first))
        }
    }
    return rings
}
