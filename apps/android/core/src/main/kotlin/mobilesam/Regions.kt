package mobilesam

/** Fill regions outside the mask of fewer than `area` pixels. Neighbours are 8, as in SAM; a region at the photo's edge counts. */
fun fillHoles(mask: Mask, area: Int): Mask {
    val holes = Regions(mask, 0)
    val data = mask.data.copyOf()
    holes.paint(data, 1) { pixels, _ -> pixels < area }
    return Mask(mask.size, data, mask.logits)
}

/** Drop regions of the mask of fewer than `area` pixels; the largest stays (the first of equal ones) if all are small. */
fun removeIslands(mask: Mask, area: Int): Mask {
    val islands = Regions(mask, 1)
    val largest = islands.largest()
    val data = mask.data.copyOf()
    islands.paint(data, 0) { pixels, region -> pixels < area && region != largest }
    return Mask(mask.size, data, mask.logits)
}

/**
 * Regions of pixels with the given value, as runs along the rows: of a large photo there are far fewer runs than pixels.
 *
 * A run's region is told by the region's first run in reading order, its root.
 */
private class Regions(mask: Mask, value: Int) {
    private var count = 0
    private var starts = IntArray(1024) // index of a run's first pixel
    private var lengths = IntArray(1024)
    private var parents = IntArray(1024)
    private val areas: IntArray // at the roots

    init {
        val (width, height) = mask.size
        var above = 0 // the first run of the row above
        for (y in 0 until height) {
            val here = count
            var x = 0
            while (x < width) {
                val start = x
                while (x < width && (mask.data[y * width + x] != 0.toByte()) == (value != 0)) x++
                if (x > start) add(y * width + start, x - start)
                x++
            }
            var upper = above
            for (run in here until count) {
                val left = starts[run] - width - 1 // one pixel further on both sides: corners touch
                val right = starts[run] - width + lengths[run]
                while (upper < here && starts[upper] + lengths[upper] <= left) upper++
                var touching = upper
                while (touching < here && starts[touching] <= right) join(touching++, run)
            }
            above = here
        }
        areas = IntArray(count)
        for (run in 0 until count) areas[root(run)] += lengths[run]
    }

    private fun add(start: Int, length: Int) {
        if (count == starts.size) {
            starts = starts.copyOf(2 * count)
            lengths = lengths.copyOf(2 * count)
            parents = parents.copyOf(2 * count)
        }
        starts[count] = start
        lengths[count] = length
        parents[count] = count
        count++
    }

    private fun root(run: Int): Int {
        var at = run
        while (parents[at] != at) {
            parents[at] = parents[parents[at]]
            at = parents[at]
        }
        return at
    }

    private fun join(a: Int, b: Int) {
        val first = root(a)
        val second = root(b)
        if (first < second) parents[second] = first else parents[first] = second
    }

    /** The root of the largest region, the first of equal ones; -1 if there is none. */
    fun largest(): Int {
        var largest = -1
        for (run in 0 until count) if (areas[run] > 0 && (largest < 0 || areas[run] > areas[largest])) largest = run
        return largest
    }

    /** Set the pixels of the chosen regions. */
    inline fun paint(data: ByteArray, value: Byte, chosen: (pixels: Int, root: Int) -> Boolean) {
        for (run in 0 until count) {
            val root = root(run)
            if (chosen(areas[root], root)) data.fill(value, starts[run], starts[run] + lengths[run])
        }
    }
}
