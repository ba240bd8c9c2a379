package mobilesam

import android.graphics.Bitmap
import kotlinx.coroutines.runBlocking
import mobilesam.android.BitmapSource
import mobilesam.android.cutout
import mobilesam.android.setImage
import mobilesam.android.toBitmap
import mobilesam.android.toPath

/** The Bitmap adapter on a Bitmap that is none of Android's: rows, colours and corners come where they belong. */
fun main() {
    val photo = Bitmap.createBitmap(3, 2, Bitmap.Config.ARGB_8888)
    photo.setPixels(IntArray(6) { 0x7f000000 + it }, 0, 3, 0, 0, 3, 2)
    val mask = Mask(Size(3, 2), byteArrayOf(0, 1, 1, 0, 1, 0), FloatArray(0))

    check(pixels(cutout(photo, mask)) == listOf(0, 0xff000001.toInt(), 0xff000002.toInt(), 3, 0xff000004.toInt(), 5))
    check(pixels(mask.toBitmap()) == listOf(0, -1, -1, 0, -1, 0))
    check(pixels(mask.toBitmap(5, 6)) == listOf(6, 5, 5, 6, 5, 6))
    check(mask.toPath().toString() == "M1.0,0.0L3.0,0.0L3.0,1.0L2.0,1.0L2.0,2.0L1.0,2.0Z")

    val seen = ArrayList<RgbImage>()
    val engine = object : Engine {
        override val description = "none"
        override fun encode(photo: RgbImage): FloatArray = FloatArray(0).also { seen += photo }
        override fun decode(embedding: FloatArray, slots: Slots, mask: FloatArray?): Decoded = error("not asked")
        override fun close() = Unit
    }
    val bundle = Bundle(32, 8, false, "float32", "", null, ModelFile("e", 1, ""), ModelFile("d", 1, ""))
    Segmenter(bundle) { engine }.use { segmenter ->
        runBlocking { segmenter.setImage(photo) }
        check(seen.single().data.contentEquals(resizeLongestSide(BitmapSource(photo), 32).data))
        photo.recycle()
        val error = runCatching { runBlocking { segmenter.setImage(photo) } }.exceptionOrNull() as SegmenterError
        check(error.code == ErrorCode.IMAGE && "recycled" in error.message) { error.message }
        check(segmenter.photo == Size(3, 2))
    }
}

private fun pixels(bitmap: Bitmap): List<Int> =
    IntArray(bitmap.width * bitmap.height).also { bitmap.getPixels(it, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height) }.toList()
