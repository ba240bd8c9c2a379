package mobilesam.sample

import android.app.Activity
import android.content.Intent
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.widget.Button
import android.widget.CheckBox
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import java.io.IOException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.MainScope
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import mobilesam.Device
import mobilesam.SegmenterError
import mobilesam.android.loadSegmenter
import mobilesam.measure
import mobilesam.toJson

/**
 * The vectors' masks and times of this device, saved as a receipt where the user wants it.
 *
 * In a process of its own (AndroidManifest.xml), so that its memory is not also the other screen's.
 */
class MeasureActivity : Activity() {
    private val scope: CoroutineScope = MainScope()
    private lateinit var gpu: CheckBox
    private lateinit var begin: Button
    private lateinit var save: Button
    private lateinit var status: TextView
    private lateinit var told: TextView
    private var receipt: String? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        status = TextView(this).apply { setText(R.string.measure_what) }
        gpu = CheckBox(this).apply {
            setText(R.string.gpu)
            isChecked = true
        }
        begin = Button(this).apply {
            setText(R.string.measure)
            setOnClickListener { begin() }
        }
        save = Button(this).apply {
            setText(R.string.save_receipt)
            isEnabled = false
            setOnClickListener { choosePlace() }
        }
        told = TextView(this)
        setContentView(
            LinearLayout(this).apply {
                orientation = LinearLayout.VERTICAL
                fitsSystemWindows = true
                listOf(status, gpu, begin, save).forEach { addView(it) }
                addView(ScrollView(this@MeasureActivity).apply { addView(told) })
            },
        )
    }

    override fun onDestroy() {
        scope.cancel() // and with it the measuring, which closes its segmenter
        super.onDestroy()
    }

    private fun begin() {
        begin.isEnabled = false
        save.isEnabled = false
        told.text = ""
        status.setText(R.string.loading)
        scope.launch {
            try {
                val measured = loadSegmenter(assets, "mobilesam", gpu = gpu.isChecked).use { segmenter ->
                    val device = Device("${Build.MANUFACTURER} ${Build.MODEL}", "Android ${Build.VERSION.RELEASE}", desktop = false)
                    measure(segmenter, { assets.open("mobilesam/vectors/$it") }, device) { done, of, what ->
                        status.text = getString(R.string.progress, done, of, what)
                    }
                }
                receipt = toJson(measured)
                told.text = measured.entries.joinToString("\n") { (name, value) -> "$name: $value" }
                save.isEnabled = true
                status.setText(R.string.measured)
            } catch (error: SegmenterError) {
                status.text = error.message
            } finally {
                begin.isEnabled = true
            }
        }
    }

    private fun choosePlace() {
        val place = Intent(Intent.ACTION_CREATE_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("application/json")
        startActivityForResult(place.putExtra(Intent.EXTRA_TITLE, "receipt.json"), SAVE)
    }

    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        val place = data?.data
        val text = receipt
        if (requestCode != SAVE || place == null || text == null) return
        scope.launch {
            try {
                withContext(Dispatchers.IO) { write(place, text) }
                status.setText(R.string.receipt_saved)
            } catch (error: IOException) {
                status.text = error.message
            }
        }
    }

    private fun write(place: Uri, text: String) {
        val stream = contentResolver.openOutputStream(place) ?: throw IOException("no place for the file")
        stream.use { it.write(text.toByteArray()) }
    }

    private companion object {
        const val SAVE = 2
    }
}
