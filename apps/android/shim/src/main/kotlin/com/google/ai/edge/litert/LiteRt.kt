// What the adapter needs of LiteRT's Kotlin classes, by the same names, over the C library of the Python wheel through JNA:
// Android's own library cannot be loaded on a desktop. For tests only; an app takes com.google.ai.edge.litert:litert.
package com.google.ai.edge.litert

import android.content.res.AssetManager
import com.sun.jna.Memory
import com.sun.jna.NativeLibrary
import com.sun.jna.Pointer
import com.sun.jna.ptr.LongByReference
import com.sun.jna.ptr.PointerByReference
import java.util.concurrent.atomic.AtomicBoolean
import java.util.concurrent.atomic.AtomicInteger

private val library = NativeLibrary.getInstance(
    System.getProperty("mobilesam.liteRt") ?: error("set -Dmobilesam.liteRt=PATH of ai_edge_litert/libLiteRt.so"),
)

private fun call(name: String, vararg arguments: Any?) {
    val status = library.getFunction(name).invokeInt(arguments)
    if (status != 0) throw LiteRtException("$name gives status $status")
}

private fun get(name: String, vararg arguments: Any?): Pointer =
    PointerByReference().also { call(name, *arguments, it) }.value

private fun destroy(name: String, handle: Pointer) = library.getFunction(name).invokeVoid(arrayOf(handle))

class LiteRtException(message: String) : Exception(message)

enum class Accelerator(internal val bit: Int) { CPU(1), GPU(2), NPU(4) }

/** Closes once, and cannot be used afterwards; handles that are still open are counted, so that a test can say that none is left. */
abstract class JniHandle internal constructor(internal val handle: Pointer) : AutoCloseable {
    private val closed = AtomicBoolean(false)

    init {
        count.incrementAndGet()
    }

    protected fun assertNotDestroyed() = check(!closed.get()) { "The handle has been destroyed." }

    protected abstract fun destroy()

    final override fun close() {
        if (!closed.compareAndSet(false, true)) return
        count.decrementAndGet()
        destroy()
    }

    companion object {
        private val count = AtomicInteger(0)

        /** How many handles are open. */
        val open: Int get() = count.get()
    }
}

class Environment private constructor(handle: Pointer) : JniHandle(handle) {
    override fun destroy() = destroy("LiteRtDestroyEnvironment", handle)

    companion object {
        fun create(): Environment = Environment(get("LiteRtCreateEnvironment", 0, null))
    }
}

class TensorBuffer internal constructor(handle: Pointer) : JniHandle(handle) {
    private val bytes: Long = LongByReference().also { call("LiteRtGetTensorBufferPackedSize", handle, it) }.value

    fun writeFloat(data: FloatArray) = locked(WRITE, 4L * data.size) { it.write(0, data, 0, data.size) }

    fun writeInt8(data: ByteArray) = locked(WRITE, data.size.toLong()) { it.write(0, data, 0, data.size) }

    fun readFloat(): FloatArray = locked(READ, bytes) { it.getFloatArray(0, (bytes / 4).toInt()) }

    private fun <T> locked(mode: Int, count: Long, use: (Pointer) -> T): T {
        assertNotDestroyed()
        if (count != bytes) throw LiteRtException("got $count bytes for a buffer of $bytes")
        val memory = PointerByReference().also { call("LiteRtLockTensorBuffer", handle, it, mode) }.value
        return try {
            use(memory)
        } finally {
            call("LiteRtUnlockTensorBuffer", handle)
        }
    }

    override fun destroy() = destroy("LiteRtDestroyTensorBuffer", handle)

    private companion object {
        const val READ = 0
        const val WRITE = 1
    }
}

class CompiledModel private constructor(
    handle: Pointer,
    private val model: Pointer,
    private val environment: Environment,
    private val ownsEnvironment: Boolean,
) : JniHandle(handle) {
    data class CpuOptions(val numThreads: Int? = null, val xnnPackFlags: Int? = null, val xnnPackWeightCachePath: String? = null)

    class Options(internal vararg val accelerators: Accelerator) {
        var cpuOptions: CpuOptions? = null

        companion object {
            val CPU: Options = Options(Accelerator.CPU)
        }
    }

    private class Signature(val index: Long, val inputs: List<String>, val outputs: List<String>)

    private val signatures: Map<String, Signature> = (0 until count("LiteRtGetNumModelSignatures", model)).associate { index ->
        val signature = get("LiteRtGetModelSignature", model, index)
        fun names(kind: String) = (0 until count("LiteRtGetNumSignature${kind}s", signature)).map {
            get("LiteRtGetSignature${kind}Name", signature, it).getString(0)
        }
        get("LiteRtGetSignatureKey", signature).getString(0) to Signature(index, names("Input"), names("Output"))
    }

    fun createInputBuffer(inputName: String, signature: String? = null): TensorBuffer =
        signature(signature).let { buffer("Input", it.index, it.inputs, inputName) }

    fun createOutputBuffer(outputName: String, signature: String? = null): TensorBuffer =
        signature(signature).let { buffer("Output", it.index, it.outputs, outputName) }

    fun run(inputs: Map<String, TensorBuffer>, outputs: Map<String, TensorBuffer>, signature: String? = null) {
        assertNotDestroyed()
        val runs = signature(signature)
        call(
            "LiteRtRunCompiledModel",
            handle,
            runs.index,
            runs.inputs.size.toLong(),
            handles(runs.inputs, inputs),
            runs.outputs.size.toLong(),
            handles(runs.outputs, outputs),
        )
    }

    private fun signature(name: String?): Signature =
        (if (name == null) signatures.values.firstOrNull() else signatures[name]) ?: throw LiteRtException("no signature $name")

    private fun buffer(kind: String, signature: Long, names: List<String>, name: String): TensorBuffer {
        val port = names.indexOf(name).toLong()
        if (port < 0) throw LiteRtException("no $kind $name")
        val tensor = get("LiteRtGetSignature${kind}TensorByIndex", get("LiteRtGetModelSignature", model, signature), port)
        val type = Memory(RANKED_TENSOR_TYPE_BYTES)
        call("LiteRtGetRankedTensorType", tensor, type)
        val requirements = get("LiteRtGetCompiledModel${kind}BufferRequirements", handle, signature, port)
        return TensorBuffer(get("LiteRtCreateManagedTensorBufferFromRequirements", environment.handle, type, requirements))
    }

    private fun handles(names: List<String>, buffers: Map<String, TensorBuffer>): Array<Pointer> =
        names.map { (buffers[it] ?: throw LiteRtException("no buffer for $it")).handle }.toTypedArray()

    override fun destroy() {
        destroy("LiteRtDestroyCompiledModel", handle)
        destroy("LiteRtDestroyModel", model)
        if (ownsEnvironment) environment.close()
    }

    companion object {
        private const val RANKED_TENSOR_TYPE_BYTES = 128L // 72 to 76 of them are used

        private fun count(name: String, of: Pointer): Long = LongByReference().also { call(name, of, it) }.value

        fun create(filePath: String, options: Options = Options.CPU, optionalEnv: Environment? = null): CompiledModel {
            // The wheel's library has a GPU accelerator of its own kind; here a GPU is what cannot be opened.
            if (Accelerator.CPU !in options.accelerators) throw LiteRtException("no accelerator")
            val environment = optionalEnv ?: Environment.create()
            val model = get("LiteRtCreateModelFromFile", environment.handle, filePath)
            val native = get("LiteRtCreateOptions")
            call("LiteRtSetOptionsHardwareAccelerators", native, options.accelerators.sumOf { it.bit })
            try {
                val compiled = get("LiteRtCreateCompiledModel", environment.handle, model, native)
                return CompiledModel(compiled, model, environment, optionalEnv == null)
            } catch (error: LiteRtException) {
                destroy("LiteRtDestroyModel", model)
                throw error
            } finally {
                destroy("LiteRtDestroyOptions", native)
            }
        }

        @Suppress("UNUSED_PARAMETER")
        fun create(assetManager: AssetManager, assetName: String, options: Options = Options.CPU, optionalEnv: Environment? = null): CompiledModel =
            throw LiteRtException("there are no assets on a desktop")
    }
}
