package mobilesam

/** Why a text is no JSON. */
class JsonError(message: String) : Exception(message)

private const val DEEPEST = 64

/** A JSON text as Map, List, String, Double, Boolean or null: the pure JVM has no parser, and Android's is not there to test. */
fun parseJson(text: String): Any? = JsonReader(text).document()

/** The same values as JSON on one line; whole numbers may be Int or Long. */
fun toJson(value: Any?): String = when (value) {
    null, is Boolean, is Int, is Long -> value.toString()
    is Double -> if (value.isFinite()) value.toString() else throw JsonError("$value has no JSON")
    is String -> quoted(value)
    is List<*> -> value.joinToString(", ", "[", "]") { toJson(it) }
    is Map<*, *> -> value.entries.joinToString(", ", "{", "}") { "${quoted(it.key as String)}: ${toJson(it.value)}" }
    else -> throw JsonError("${value.javaClass.simpleName} has no JSON")
}

private fun quoted(text: String): String = text.map { character ->
    when {
        character == '"' || character == '\\' -> "\\$character"
        character < ' ' -> "\\u%04x".format(character.code)
        else -> character.toString()
    }
}.joinToString("", "\"", "\"")

private class JsonReader(private val text: String) {
    private var at = 0

    fun document(): Any? {
        val value = value(0)
        skipSpace()
        if (at < text.length) fail("the end")
        return value
    }

    private fun value(depth: Int): Any? {
        if (depth > DEEPEST) throw JsonError("nested deeper than $DEEPEST")
        skipSpace()
        return when (peek()) {
            '{' -> objectAt(depth)
            '[' -> arrayAt(depth)
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> number()
        }
    }

    private fun objectAt(depth: Int): Map<String, Any?> {
        val found = LinkedHashMap<String, Any?>()
        at++
        skipSpace()
        if (skip('}')) return found
        do {
            skipSpace()
            if (peek() != '"') fail("a name")
            val name = string()
            skipSpace()
            if (!skip(':')) fail("a colon")
            found[name] = value(depth + 1)
            skipSpace()
        } while (skip(','))
        if (!skip('}')) fail("a comma or }")
        return found
    }

    private fun arrayAt(depth: Int): List<Any?> {
        val found = ArrayList<Any?>()
        at++
        skipSpace()
        if (skip(']')) return found
        do {
            found.add(value(depth + 1))
            skipSpace()
        } while (skip(','))
        if (!skip(']')) fail("a comma or ]")
        return found
    }

    private fun string(): String {
        val found = StringBuilder()
        at++
        while (true) {
            val character = next()
            when {
                character == '"' -> return found.toString()
                character == '\\' -> found.append(escaped())
                character < ' ' -> fail("an escape for a control character")
                else -> found.append(character)
            }
        }
    }

    private fun escaped(): Char = when (val character = next()) {
        '"', '\\', '/' -> character
        'b' -> '\b'
        'f' -> '\u000c'
        'n' -> '\n'
        'r' -> '\r'
        't' -> '\t'
        'u' -> {
            val digits = text.substring(at, minOf(at + 4, text.length))
            if (digits.length < 4 || digits.any { it.digitToIntOrNull(16) == null }) fail("four hexadecimal digits")
            at += 4
            digits.toInt(16).toChar()
        }
        else -> fail("an escape")
    }

    private fun number(): Double {
        val match = NUMBER.matchAt(text, at) ?: fail("a value")
        at = match.range.last + 1
        return match.value.toDouble()
    }

    private fun <T> word(word: String, value: T): T {
        if (!text.startsWith(word, at)) fail(word)
        at += word.length
        return value
    }

    private fun skipSpace() {
        while (at < text.length && text[at] in " \t\r\n") at++
    }

    private fun skip(character: Char): Boolean = (peek() == character).also { if (it) at++ }

    private fun peek(): Char? = text.getOrNull(at)

    private fun next(): Char = text.getOrNull(at++) ?: fail("more text")

    private fun fail(expected: String): Nothing = throw JsonError("expected $expected at character $at")

    private companion object {
        val NUMBER = Regex("-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?")
    }
}
