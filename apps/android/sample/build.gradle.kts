plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "mobilesam.sample"
    compileSdk = 36
    defaultConfig {
        applicationId = "mobilesam.sample"
        minSdk = 29 // saves to the gallery without a permission
        targetSdk = 36
    }
    androidResources { noCompress += "tflite" } // LiteRT maps the files into memory
}

kotlin { jvmToolchain(17) }

dependencies {
    implementation(project(":litert"))
    implementation("org.jetbrains.kotlinx:kotlinx-coroutines-android:1.10.2")
}

// The bundle: put manifest.json and tflite/ of `mobilesam-export export` into src/main/assets/mobilesam.
