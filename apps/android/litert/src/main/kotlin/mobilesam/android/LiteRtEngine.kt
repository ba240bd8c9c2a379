package mobilesam.android

import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.Environment
import com.google.ai.edge.litert.LiteRtException
import com.google.ai.edge.litert.TensorBuffer
import mobilesam.Bundle
import mobilesam.Decoded
import mobilesam.Engine
import mobilesam.RgbImage
import mobilesam.Slots
import mobilesam.modelFrame
import mobilesam.modelFrame8Bit

/** Makes a model from a path of the bundle: from a file, or from the app's assets. */
typealias OpenModel = (path: String, options: CompiledModel.Options, environment: Environment) -> CompiledModel

/**
 * LiteRT's CompiledModel.
 *
 * Tensor buffers are handles that nobody collects: they are made once, used for every call and closed with the models.
 * The decoder stays on the CPU: on GPUs it loses precision.
 */
class LiteRtEngine private constructor(private val bundle: Bundle, gpu: Boolean, threads: Int, openModel: OpenModel) : Engine {
    private val handles = ArrayList<AutoCloseable>()
    private val encode: Signature
    private val decode: Signature
    private val noMask = FloatArray(bundle.imageSize / 4 * (bundle.imageSize / 4))
    private var lastEmbedding: FloatArray? = null

    override val description = "LiteRT ${BuildConfig.LITERT_VERSION}, ${if (gpu) "GPU" else "CPU"} encoder, CPU decoder"

    init {
        try {
            val environment = own(Environment.create())
            val cpu = CompiledModel.Options(Accelerator.CPU).apply { cpuOptions = CompiledModel.CpuOptions(numThreads = threads) }
            val encoder = own(openModel(bundle.encoder.path, if (gpu) CompiledModel.Options(Accelerator.GPU) else cpu, environment))
            val oneFile = bundle.decoder.path == bundle.encoder.path && !gpu
            val decoder = if (oneFile) encoder else own(openModel(bundle.decoder.path, cpu, environment))
            encode = Signature(encoder, "encode", listOf("image"), listOf("image_embeddings"))
            decode = Signature(
                decoder,
                "decode",
                listOf("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input"),
                listOf("low_res_masks", "iou_predictions"),
            )
        } catch (thrown: Throwable) {
            close()
            throw thrown
        }
    }

    override fun encode(photo: RgbImage): FloatArray {
        val image = encode.inputs.getValue("image")
        if (bundle.takes8Bit) image.writeInt8(modelFrame8Bit(photo, bundle.imageSize)) else image.writeFloat(modelFrame(photo, bundle.imageSize))
        encode.run()
        return encode.read("image_embeddings")
    }

    override fun decode(embedding: FloatArray, slots: Slots, mask: FloatArray?): Decoded {
        if (embedding !== lastEmbedding) {
            lastEmbedding = null
            decode.inputs.getValue("image_embeddings").writeFloat(embedding)
            lastEmbedding = embedding
        }
        decode.inputs.getValue("point_coords").writeFloat(slots.coords)
        decode.inputs.getValue("point_labels").writeFloat(slots.labels)
        decode.inputs.getValue("mask_input").writeFloat(mask ?: noMask)
        decode.inputs.getValue("has_mask_input").writeFloat(floatArrayOf(if (mask == null) 0f else 1f))
        decode.run()
        return Decoded(decode.read("low_res_masks"), decode.read("iou_predictions"))
    }

    /** In the order opposite to that in which they were made: buffers, models, environment. */
    override fun close() {
        handles.asReversed().forEach { it.close() }
        handles.clear()
    }

    private fun <T : AutoCloseable> own(handle: T): T = handle.also { handles += it }

    private inner class Signature(val model: CompiledModel, val name: String, inputNames: List<String>, outputNames: List<String>) {
        val inputs: Map<String, TensorBuffer> = inputNames.associateWith { own(model.createInputBuffer(it, name)) }
        val outputs: Map<String, TensorBuffer> = outputNames.associateWith { own(model.createOutputBuffer(it, name)) }

        fun run() = model.run(inputs, outputs, name)

        fun read(output: String): FloatArray = outputs.getValue(output).readFloat()
    }

    companion object {
        /**
         * What a Segmenter opens its engine with, and opens another with after a failure. A GPU that cannot be opened, or that
         * failed once, is not asked again: the encoder then runs on the CPU.
         */
        fun opener(bundle: Bundle, gpu: Boolean, threads: Int, openModel: OpenModel): () -> Engine {
            var attempts = 0
            return {
                val first = attempts++ == 0
                if (gpu && first) openOnGpu(bundle, threads, openModel) else LiteRtEngine(bundle, false, threads, openModel)
            }
        }

        private fun openOnGpu(bundle: Bundle, threads: Int, openModel: OpenModel): Engine =
            try {
                LiteRtEngine(bundle, true, threads, openModel)
            } catch (_: LiteRtException) {
                LiteRtEngine(bundle, false, threads, openModel)
            }
    }
}
