package mobilesam

import java.io.IOException
import java.io.InputStream
import java.security.MessageDigest

/** What a host needs of a bundle's manifest.json. */
data class Bundle(
    val imageSize: Int,
    /** Slots of the decoder; null for any number. */
    val maxPoints: Int?,
    /** Whether the encoder takes 8-bit pixels instead of float32. */
    val takes8Bit: Boolean,
    val precision: String,
    val weightsSha256: String,
    /** What everybody who uses these weights must know, or null. */
    val notice: String?,
    val encoder: ModelFile,
    /** Equal to `encoder` if one file has both. */
    val decoder: ModelFile,
) {
    companion object {
        /** Read manifest.json for its TFLite files. Everything in it is checked: it comes from outside. */
        fun read(manifest: InputStream): Bundle = readManifest(manifest)
    }
}

/** `path` is relative to manifest.json. */
data class ModelFile(val path: String, val sizeBytes: Long, val sha256: String)

private const val LARGEST_MANIFEST_BYTES = 1 shl 20
private const val LARGEST_MODEL_BYTES = 1 shl 30

private fun readManifest(manifest: InputStream): Bundle {
    val root = record(parse(manifest), "manifest.json")
    if (root["format"] != "mobilesam-export-bundle") throw damaged("format ${root["format"]}")
    checkVersion(root["contract_version"]) // first: another version's manifest may look different
    val target = record(root["targets"], "targets")["tflite"]
        ?: throw SegmenterError(ErrorCode.MODEL_FILE, "the bundle has no tflite files; export them with --target tflite")
    val entry = record(target, "tflite")
    val contract = record(entry["contract"], "contract")
    checkVersion(contract["version"])
    val options = record(entry["options"] ?: emptyMap<String, Any?>(), "options")
    if (options["official_decoder"] == true || options["single_mask"] == true) {
        throw SegmenterError(
            ErrorCode.MODEL_FILE,
            "the decoder has another interface; export without --official-decoder and --single-mask",
        )
    }
    val imageSize = whole(contract["image_size"], 32..4096, "image_size").toInt()
    if (imageSize % 32 != 0) throw damaged("image_size $imageSize")
    val files = entry["files"] as? List<*> ?: emptyList<Any?>()
    return Bundle(
        imageSize = imageSize,
        maxPoints = contract["max_points"]?.let { whole(it, 1..1024, "max_points").toInt() },
        takes8Bit = takes8Bit(contract),
        precision = entry["precision"].toString(),
        weightsSha256 = record(root["weights"], "weights")["sha256"].toString(),
        notice = record(root["weights"], "weights")["notice"] as? String,
        encoder = modelFile(files, "encoder"),
        decoder = modelFile(files, "decoder"),
    )
}

private fun checkVersion(version: Any?) {
    if (version == CONTRACT_VERSION) return
    throw SegmenterError(
        ErrorCode.CONTRACT_VERSION,
        "the models follow contract version $version, this code $CONTRACT_VERSION; export them again, or update mobilesam",
    )
}

private fun takes8Bit(contract: Map<*, *>): Boolean {
    val inputs = record(contract["encoder"], "encoder")["inputs"] as? List<*> ?: throw damaged("no inputs")
    return when (val dtype = record(inputs.singleOrNull(), "one encoder input")["dtype"]) {
        "float32" -> false
        "uint8" -> true
        else -> throw damaged("encoder input $dtype")
    }
}

private fun parse(manifest: InputStream): Any? {
    val bytes = try {
        manifest.use { it.readBytesAtMost(LARGEST_MANIFEST_BYTES + 1) }
    } catch (error: IOException) {
        throw asSegmenterError(error, ErrorCode.MODEL_FILE, "manifest.json cannot be read")
    }
    if (bytes.size > LARGEST_MANIFEST_BYTES) throw damaged("more than $LARGEST_MANIFEST_BYTES bytes")
    return try {
        parseJson(bytes.decodeToString())
    } catch (error: JsonError) {
        throw damaged("not JSON: ${error.message}")
    }
}

/** InputStream.readNBytes, which Android has from version 13 on only. */
internal fun InputStream.readBytesAtMost(most: Int): ByteArray {
    val bytes = java.io.ByteArrayOutputStream()
    val chunk = ByteArray(8192)
    while (bytes.size() < most) {
        val count = read(chunk, 0, minOf(chunk.size, most - bytes.size()))
        if (count < 0) break
        bytes.write(chunk, 0, count)
    }
    return bytes.toByteArray()
}

private fun modelFile(files: List<*>, role: String): ModelFile {
    val entry = files.map { record(it, "files") }.firstOrNull { it["role"] == role || it["role"] == "combined" }
        ?: throw damaged("no $role")
    val path = entry["path"] as? String ?: throw damaged("$role without a path")
    if (!isInside(path)) throw damaged("path $path")
    return ModelFile(path, whole(entry["size_bytes"], 1..LARGEST_MODEL_BYTES, "size_bytes"), entry["sha256"].toString())
}

/** Whether a path stays in the folder that it is relative to. */
internal fun isInside(path: String): Boolean = !path.startsWith("/") && '\\' !in path && ".." !in path.split("/")

/** Compare a model file with the manifest, its size and its sha256. Reads the whole file. */
fun checkModelFile(file: ModelFile, content: InputStream) {
    val digest = MessageDigest.getInstance("SHA-256")
    var bytes = 0L
    try {
        content.use {
            val chunk = ByteArray(1 shl 16)
            while (bytes <= file.sizeBytes) {
                val count = it.read(chunk)
                if (count < 0) break
                digest.update(chunk, 0, count)
                bytes += count
            }
        }
    } catch (error: IOException) {
        throw asSegmenterError(error, ErrorCode.MODEL_FILE, "${file.path} cannot be read")
    }
    if (bytes != file.sizeBytes) {
        val got = if (bytes > file.sizeBytes) "more" else "$bytes"
        throw SegmenterError(ErrorCode.MODEL_FILE, "${file.path} has $got bytes instead of ${file.sizeBytes}; copy it again")
    }
    if (digest.digest().joinToString("") { "%02x".format(it) } != file.sha256) {
        throw SegmenterError(ErrorCode.MODEL_FILE, "${file.path} has been changed (another sha256); copy it again")
    }
}

private fun whole(value: Any?, range: IntRange, what: String): Long {
    if (value !is Double || value % 1.0 != 0.0 || value < range.first || value > range.last) throw damaged("$what $value")
    return value.toLong()
}

private fun record(value: Any?, what: String): Map<*, *> = value as? Map<*, *> ?: throw damaged("no $what")

private fun damaged(what: String) = SegmenterError(
    ErrorCode.MODEL_FILE,
    "manifest.json is no bundle's manifest (${what.take(80)}); export the bundle again",
)
