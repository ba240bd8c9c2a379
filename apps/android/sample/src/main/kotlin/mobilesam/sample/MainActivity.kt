package mobilesam.sample

import android.app.Activity
import android.content.ContentValues
import android.content.Intent
import android.graphics.Bitmap
import android.os.Bundle
import android.provider.MediaStore
import android.view.Gravity
import android.widget.Button
import android.widget.LinearLayout
import android.widget.TextView
import java.io.IOException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.MainScope
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import mobilesam.Mask
import mobilesam.Point
import mobilesam.Segmenter
import mobilesam.SegmenterError
import mobilesam.android.cutout
import mobilesam.android.decodePhoto
import mobilesam.android.loadSegmenter
import mobilesam.android.setImage

/** Camera roll, tap, cut-out. A long tap says what does not belong to the object. */
class MainActivity : Activity() {
    private val scope: CoroutineScope = MainScope()
    private lateinit var status: TextView
    private lateinit var photoView: PhotoView
    private lateinit var choose: Button
    private lateinit var save: Button
    private var segmenter: Segmenter? = null
    private var photo: Bitmap? = null
    private var mask: Mask? = null
    private var points: List<Point> = emptyList()
    private var isEncoding = false
    private var work: Job? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        status = TextView(this)
        photoView = PhotoView(this).apply { onTap = { x, y, label -> tapped(Point(x, y, label)) } }
        save = Button(this).apply {
            setText(R.string.save)
            isEnabled = false
            setOnClickListener { save() }
        }
        choose = Button(this).apply {
            setText(R.string.choose)
            isEnabled = false // until the models are there
            setOnClickListener { startActivityForResult(Intent(Intent.ACTION_GET_CONTENT).setType("image/*"), CHOOSE) }
        }
        val undo = Button(this).apply {
            setText(R.string.undo)
            setOnClickListener { ask(points.dropLast(1)) }
        }
        val measure = Button(this).apply {
            setText(R.string.measure)
            setOnClickListener { startActivity(Intent(this@MainActivity, MeasureActivity::class.java)) }
        }
        val buttons = LinearLayout(this).apply {
            gravity = Gravity.CENTER
            listOf(choose, undo, save, measure).forEach { addView(it) }
        }
        setContentView(
            LinearLayout(this).apply {
                orientation = LinearLayout.VERTICAL
                fitsSystemWindows = true
                addView(status)
                addView(photoView, LinearLayout.LayoutParams(LinearLayout.LayoutParams.MATCH_PARENT, 0, 1f))
                addView(buttons)
            },
        )
        begin(R.string.loading) {
            segmenter = loadSegmenter(assets, "mobilesam")
            choose.isEnabled = true
            status.setText(R.string.ready)
        }
    }

    override fun onDestroy() {
        scope.cancel() // calls return at once; what the engine has begun it finishes and drops
        segmenter?.close()
        super.onDestroy()
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        val uri = data?.data
        if (requestCode != CHOOSE || uri == null) return
        begin(R.string.encoding) {
            isEncoding = true
            try {
                val chosen = decodePhoto(contentResolver, uri)
                segmenter?.setImage(chosen)
                photo = chosen
            } finally {
                isEncoding = false
            }
            points = emptyList()
            show(null)
            status.setText(R.string.tap)
        }
    }

    private fun tapped(point: Point) = ask(points + point)

    private fun ask(asked: List<Point>) {
        val segmenter = segmenter ?: return
        if (photo == null || isEncoding) return
        points = asked
        if (asked.isEmpty()) return show(null)
        begin(null) {
            val (found, score) = segmenter.predict(asked)
            show(found)
            status.text = getString(R.string.score, score)
        }
    }

    private fun show(found: Mask?) {
        mask = found
        save.isEnabled = found != null
        photo?.let { photoView.show(it, found, points) }
    }

    private fun save() {
        val photo = photo ?: return
        val mask = mask ?: return
        begin(null) {
            withContext(Dispatchers.IO) {
                val values = ContentValues().apply {
                    put(MediaStore.MediaColumns.DISPLAY_NAME, "cutout.png")
                    put(MediaStore.MediaColumns.MIME_TYPE, "image/png")
                }
                val uri = contentResolver.insert(MediaStore.Images.Media.EXTERNAL_CONTENT_URI, values)
                val stream = uri?.let { contentResolver.openOutputStream(it) } ?: throw IOException("no place for the file")
                stream.use { cutout(photo, mask).compress(Bitmap.CompressFormat.PNG, 100, it) }
            }
            status.setText(R.string.saved)
        }
    }

    /** Do one thing; a newer one takes the place of an older one that still waits. */
    private fun begin(message: Int?, task: suspend () -> Unit) {
        message?.let { status.setText(it) }
        work?.cancel()
        work = scope.launch {
            try {
                task()
            } catch (error: SegmenterError) {
                status.text = error.message // one sentence for people; error.code for programs
            } catch (error: IOException) {
                status.text = error.message
            }
        }
    }

    private companion object {
        const val CHOOSE = 1
    }
}
