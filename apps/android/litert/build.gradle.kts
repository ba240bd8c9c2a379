plugins {
    id("com.android.library")
    id("org.jetbrains.kotlin.android")
}

val liteRt = "2.3.0"

android {
    namespace = "mobilesam.android"
    compileSdk = 36
    buildFeatures { buildConfig = true }
    defaultConfig {
        minSdk = 26
        buildConfigField("String", "LITERT_VERSION", "\"$liteRt\"") // for receipts: the library does not say it
    }
}

kotlin { jvmToolchain(17) }

dependencies {
    api(project(":core"))
    implementation("com.google.ai.edge.litert:litert:$liteRt")
    implementation("com.google.ai.edge.litert:litert-gpu:$liteRt") // without it no GPU can be opened, since 2.3
    implementation("org.jetbrains.kotlinx:kotlinx-coroutines-android:1.10.2")
}
