package mobilesam

import android.content.ContentResolver
import android.net.Uri
import java.io.ByteArrayOutputStream
import java.io.DataOutputStream
import java.io.File
import java.util.zip.CRC32
import kotlin.math.abs
import kotlinx.coroutines.runBlocking
import mobilesam.android.BitmapSource
import mobilesam.android.decodePhoto

/**
 * Photos of the camera roll, decoded by Java's ImageIO under Android's names: `PhotosTestKt VECTORS`. All eight EXIF orientations come
 * upright, and what cannot be decoded, read or held is refused.
 */
fun main(arguments: Array<String>) {
    val vectors = Vectors(File(arguments[0]))
    for (case in vectors.section("orientation")) {
        val decoded = runBlocking { decodePhoto(resolver, FileUri(vectors.file(case.text("jpeg")))) }
        val (height, width) = case.case("jpeg_pixels").ints("shape")
        val source = BitmapSource(decoded)
        check(source.size == Size(width, height)) { "${case.name}: ${source.size}" }
        val expected = vectors.bytes(case.case("jpeg_pixels"))
        val row = IntArray(width)
        for (y in 0 until height) {
            source.readRow(y, row)
            for (i in 0 until 3 * width) {
                val got = row[i / 3] shr (16 - 8 * (i % 3)) and 0xff
                check(abs(got - (expected[3 * width * y + i].toInt() and 0xff)) <= 8) { "${case.name}: row $y" } // as decoders differ
            }
        }
    }

    val folder = kotlin.io.path.createTempDirectory().toFile()
    try {
        fun refused(word: String, uri: Uri) {
            val error = runCatching { runBlocking { decodePhoto(resolver, uri) } }.exceptionOrNull() as SegmenterError
            println("${error.code.text}: ${error.message}")
            check(error.code == ErrorCode.IMAGE && word in error.message)
        }
        fun file(content: ByteArray) = FileUri(folder.resolve("photo").apply { writeBytes(content) })
        refused("10000 x 10000", file(pngHeader(10_000, 10_000))) // 100 million pixels, none of which is there to be decoded
        refused("cannot decode", file(pngHeader(100, 100)))
        refused("cannot decode", file("no photo".toByteArray()))
        refused("cannot decode", file(ByteArray(0)))
        refused("cannot be read", FileUri(folder.resolve("none")))
        refused("may not read", object : Uri() {
            override fun toString(): String = throw SecurityException("permission denied")
        })
    } finally {
        folder.deleteRecursively()
    }
}

private val resolver = object : ContentResolver() {}

private class FileUri(private val file: File) : Uri() {
    override fun toString(): String = file.path
}

/** A PNG of that size, cut off behind its header. */
private fun pngHeader(width: Int, height: Int): ByteArray {
    val header = ByteArrayOutputStream()
    DataOutputStream(header).apply {
        writeBytes("IHDR")
        writeInt(width)
        writeInt(height)
        write(byteArrayOf(8, 2, 0, 0, 0))
    }
    val file = ByteArrayOutputStream()
    DataOutputStream(file).apply {
        write(byteArrayOf(0x89.toByte(), 'P'.code.toByte(), 'N'.code.toByte(), 'G'.code.toByte(), 13, 10, 26, 10))
        writeInt(header.size() - 4)
        write(header.toByteArray())
        writeInt(CRC32().apply { update(header.toByteArray()) }.value.toInt())
    }
    return file.toByteArray()
}
