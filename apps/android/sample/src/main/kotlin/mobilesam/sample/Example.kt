package mobilesam.sample

import android.content.Context
import android.graphics.Bitmap
import android.net.Uri
import mobilesam.Point
import mobilesam.android.cutout
import mobilesam.android.decodePhoto
import mobilesam.android.loadSegmenter
import mobilesam.android.setImage
import mobilesam.fillHoles

suspend fun cutOut(context: Context, uri: Uri, x: Float, y: Float): Bitmap =
    loadSegmenter(context.assets, "mobilesam").use { segmenter -> // assets/mobilesam: manifest.json and tflite/
        val photo = decodePhoto(context.contentResolver, uri) // upright
        segmenter.setImage(photo) // once a photo
        val (mask) = segmenter.predict(listOf(Point(x, y))) // once a tap, in the photo's pixels
        val more = listOf(Point(x, y), Point(5f, 5f, label = 0))
        val (better, score) = segmenter.predict(more, previousMask = mask) // refine it
        println("predicted IoU $score")
        cutout(photo, fillHoles(better, area = 200))
    } // a SegmenterError has one sentence for people in its message and a code for programs
