package mobilesam

import com.google.ai.edge.litert.JniHandle
import java.io.File
import kotlinx.coroutines.runBlocking
import mobilesam.android.loadSegmenter

/** 500 taps on one photo take no memory and no handle: `MemoryTestKt BUNDLE`. The heap is fixed by the caller: what grows is native. */
fun main(arguments: Array<String>) = runBlocking {
    loadSegmenter(File(arguments[0]), threads = 1).use { segmenter ->
        segmenter.setImage(MadeUpPhoto(Size(400, 300)))
        val handles = JniHandle.open
        val tap = listOf(Point(140.5f, 130.5f))
        var mask = segmenter.predict(tap).mask
        repeat(50) { mask = segmenter.predict(tap, previousMask = mask).mask }
        val before = residentBytes()
        val begun = System.nanoTime()
        repeat(500) { mask = segmenter.predict(tap, previousMask = mask).mask }
        val milliseconds = (System.nanoTime() - begun) / 500 / 1e6
        val grown = (residentBytes() - before) / 1e6
        println("500 taps: %.1f MB more, %.1f ms a tap; %.0f MB in all".format(grown, milliseconds, residentBytes() / 1e6))
        check(grown <= MOST_GROWTH_MB)
        check(JniHandle.open == handles) { "${JniHandle.open - handles} handles more than before the first tap" }
    }
    noHandles()
}

/** Buffers made anew for each tap cost 90 kB a tap at S = 128, 45 MB here; what a JVM's own threads and compiler take is a few. */
private const val MOST_GROWTH_MB = 10.0

private fun residentBytes(): Long =
    File("/proc/self/statm").readText().split(" ")[1].toLong() * 4096
