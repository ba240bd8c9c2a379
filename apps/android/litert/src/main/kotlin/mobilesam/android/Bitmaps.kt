package mobilesam.android

import android.graphics.Bitmap
import android.graphics.Path
import mobilesam.Mask
import mobilesam.PixelSource
import mobilesam.Segmenter
import mobilesam.Size
import mobilesam.checkSameSize
import mobilesam.cutOutRow
import mobilesam.paintMaskRow
import mobilesam.polygons

/** A bitmap's pixels, a row at a time. Bitmaps in graphics memory (Config.HARDWARE) cannot be read: copy them first. */
class BitmapSource(private val bitmap: Bitmap) : PixelSource {
    override val size: Size = Size(bitmap.width, bitmap.height)

    override fun readRow(y: Int, into: IntArray) = bitmap.getPixels(into, 0, size.width, 0, y, size.width, 1)
}

/** Embed an upright photo; do not recycle or change it before this returns. */
suspend fun Segmenter.setImage(photo: Bitmap): Unit = setImage(BitmapSource(photo))

/** The mask as a bitmap, by default white on transparent; colours are 0xAARRGGBB. */
fun Mask.toBitmap(inside: Int = -1, outside: Int = 0): Bitmap = bitmapOf(size) { y, row -> paintMaskRow(this, y, inside, outside, row) }

/** The photo with alpha 255 in the mask and 0 outside. */
fun cutout(photo: Bitmap, mask: Mask): Bitmap {
    val source = BitmapSource(photo)
    checkSameSize(source.size, mask)
    return bitmapOf(mask.size) { y, row ->
        source.readRow(y, row)
        cutOutRow(row, mask, y)
    }
}

/** The mask's outlines, in the photo's pixels. */
fun Mask.toPath(): Path {
    val path = Path()
    for (ring in polygons(this)) {
        for (i in ring.indices step 2) {
            val x = ring[i].toFloat()
            val y = ring[i + 1].toFloat()
            if (i == 0) path.moveTo(x, y) else path.lineTo(x, y)
        }
        path.close()
    }
    return path
}

private inline fun bitmapOf(size: Size, paint: (y: Int, row: IntArray) -> Unit): Bitmap {
    val bitmap = Bitmap.createBitmap(size.width, size.height, Bitmap.Config.ARGB_8888)
    val row = IntArray(size.width)
    for (y in 0 until size.height) {
        paint(y, row)
        bitmap.setPixels(row, 0, size.width, 0, y, size.width, 1)
    }
    return bitmap
}
