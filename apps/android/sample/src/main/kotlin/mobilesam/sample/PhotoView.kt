package mobilesam.sample

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Matrix
import android.graphics.Paint
import android.graphics.Path
import android.view.GestureDetector
import android.view.MotionEvent
import android.view.View
import mobilesam.Mask
import mobilesam.Point
import mobilesam.android.toPath

/** A photo that fits the view, the mask's outline and fill over it, and taps in the photo's pixels. */
class PhotoView(context: Context) : View(context) {
    var onTap: (x: Float, y: Float, label: Int) -> Unit = { _, _, _ -> }
    private var photo: Bitmap? = null
    private var outline: Path? = null
    private var points: List<Point> = emptyList()
    private val toView = Matrix()
    private val smooth = Paint(Paint.FILTER_BITMAP_FLAG)
    private val fill = Paint(Paint.ANTI_ALIAS_FLAG).apply { color = 0x660a84ff }
    private val dot = Paint(Paint.ANTI_ALIAS_FLAG)
    private val gestures = GestureDetector(
        context,
        object : GestureDetector.SimpleOnGestureListener() {
            override fun onDown(event: MotionEvent): Boolean = true

            override fun onSingleTapUp(event: MotionEvent): Boolean = tapped(event, 1)

            override fun onLongPress(event: MotionEvent) {
                tapped(event, 0)
            }
        },
    )

    fun show(photo: Bitmap, mask: Mask?, points: List<Point>) {
        this.photo = photo
        this.points = points
        outline = mask?.toPath()
        invalidate()
    }

    override fun onTouchEvent(event: MotionEvent): Boolean = gestures.onTouchEvent(event)

    override fun onDraw(canvas: Canvas) {
        val photo = photo ?: return
        val scale = fit(photo)
        toView.setScale(scale, scale)
        toView.postTranslate((width - photo.width * scale) / 2, (height - photo.height * scale) / 2)
        canvas.save()
        canvas.concat(toView)
        canvas.drawBitmap(photo, 0f, 0f, smooth)
        outline?.let { canvas.drawPath(it, fill) }
        for ((x, y, label) in points) {
            dot.color = if (label == 1) 0xff34c759.toInt() else 0xffff3b30.toInt()
            canvas.drawCircle(x, y, 6 * resources.displayMetrics.density / scale, dot)
        }
        canvas.restore()
    }

    private fun fit(photo: Bitmap): Float = minOf(width / photo.width.toFloat(), height / photo.height.toFloat())

    private fun tapped(event: MotionEvent, label: Int): Boolean {
        val photo = photo ?: return false
        val scale = fit(photo)
        val x = (event.x - (width - photo.width * scale) / 2) / scale
        val y = (event.y - (height - photo.height * scale) / 2) / scale
        if (x < 0 || y < 0 || x > photo.width || y > photo.height) return false
        onTap(x, y, label)
        return true
    }
}
