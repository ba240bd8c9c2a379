plugins { id("org.jetbrains.kotlin.jvm") }

kotlin {
    jvmToolchain(17)
    compilerOptions { allWarningsAsErrors = true }
}

dependencies { implementation("org.jetbrains.kotlinx:kotlinx-coroutines-core:1.10.2") }

/** The tests are programs that need no framework: what npm's kotlinc compiles runs them too. */
fun program(name: String, main: String, vararg arguments: String) = tasks.register<JavaExec>(name) {
    classpath = sourceSets["test"].runtimeClasspath
    mainClass = main
    args(*arguments)
}

val vectors = program("vectors", "mobilesam.VectorsTestKt", rootDir.resolve("../conformance/vectors").path)
val segmenter = program("segmenter", "mobilesam.SegmenterTestKt")
val measure = program("measure", "mobilesam.MeasureTestKt")
tasks.check { dependsOn(vectors, segmenter, measure) }
