package mobilesam.android

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Matrix
import android.media.ExifInterface
import android.net.Uri
import java.io.IOException
import java.io.InputStream
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext
import mobilesam.ErrorCode
import mobilesam.Orientation
import mobilesam.SegmenterError
import mobilesam.Size
import mobilesam.checkPhotoSize

/** A photo from the camera roll, upright by its EXIF orientation. Its size is looked at before its pixels are decoded. */
suspend fun decodePhoto(resolver: ContentResolver, uri: Uri): Bitmap = withContext(Dispatchers.IO) {
    try {
        val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
        open(resolver, uri).use { BitmapFactory.decodeStream(it, null, bounds) }
        if (bounds.outWidth < 0) throw undecodable()
        checkPhotoSize(Size(bounds.outWidth, bounds.outHeight))
        val orientation = open(resolver, uri).use { ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, 1) }
        val stored = open(resolver, uri).use { BitmapFactory.decodeStream(it, null, null) } ?: throw undecodable()
        upright(stored, Orientation.fromExif(orientation))
    } catch (error: IOException) {
        throw SegmenterError(ErrorCode.IMAGE, "the photo cannot be read; choose another", error)
    } catch (error: SecurityException) {
        throw SegmenterError(ErrorCode.IMAGE, "this app may not read the photo; choose it again", error)
    } catch (error: OutOfMemoryError) {
        throw SegmenterError(ErrorCode.ENGINE, "not enough memory for the photo; choose a smaller one", error)
    }
}

private fun open(resolver: ContentResolver, uri: Uri): InputStream =
    resolver.openInputStream(uri) ?: throw IOException("no content")

private fun undecodable() = SegmenterError(ErrorCode.IMAGE, "this device cannot decode the photo; give a JPEG, PNG or WebP file")

private fun upright(stored: Bitmap, orientation: Orientation): Bitmap {
    if (orientation == Orientation.UPRIGHT) return stored
    val matrix = Matrix().apply { setValues(orientation.matrix(Size(stored.width, stored.height))) }
    return Bitmap.createBitmap(stored, 0, 0, stored.width, stored.height, matrix, false).also { stored.recycle() }
}
