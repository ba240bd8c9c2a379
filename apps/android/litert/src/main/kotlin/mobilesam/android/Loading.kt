package mobilesam.android

import android.content.res.AssetManager
import com.google.ai.edge.litert.CompiledModel
import java.io.File
import java.io.IOException
import java.io.InputStream
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.withContext
import mobilesam.Bundle
import mobilesam.ErrorCode
import mobilesam.Segmenter
import mobilesam.SegmenterError
import mobilesam.checkModelFile

/**
 * A segmenter over a bundle in the app's assets: `assets/FOLDER/manifest.json` and what it names. Model files are compared with
 * the manifest first, which takes some tenths of a second.
 *
 * @param gpu run the encoder on the GPU where there is one; the decoder always runs on the CPU.
 * @param threads of the CPU.
 */
suspend fun loadSegmenter(assets: AssetManager, folder: String, gpu: Boolean = true, threads: Int = 4): Segmenter =
    load({ assets.open("$folder/$it") }, gpu, threads) { path, options, environment ->
        CompiledModel.create(assets, "$folder/$path", options, environment)
    }

/** The same over a bundle in a folder, such as one that the app has downloaded. */
suspend fun loadSegmenter(folder: File, gpu: Boolean = true, threads: Int = 4): Segmenter =
    load({ File(folder, it).inputStream() }, gpu, threads) { path, options, environment ->
        CompiledModel.create(File(folder, path).path, options, environment)
    }

private suspend fun load(read: (path: String) -> InputStream, gpu: Boolean, threads: Int, openModel: OpenModel): Segmenter {
    fun open(path: String): InputStream =
        try {
            read(path)
        } catch (error: IOException) {
            throw SegmenterError(ErrorCode.MODEL_FILE, "$path is missing from the bundle; copy the whole folder", error)
        }
    val bundle = withContext(Dispatchers.IO) {
        Bundle.read(open("manifest.json")).also { bundle ->
            for (file in setOf(bundle.encoder, bundle.decoder)) checkModelFile(file, open(file.path))
        }
    }
    val segmenter = Segmenter(bundle, LiteRtEngine.opener(bundle, gpu, threads, openModel))
    try {
        segmenter.open()
    } catch (thrown: Throwable) {
        segmenter.close()
        throw thrown
    }
    return segmenter
}
