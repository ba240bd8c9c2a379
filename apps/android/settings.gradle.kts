pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}
dependencyResolutionManagement {
    repositories {
        google()
        mavenCentral()
    }
}
rootProject.name = "mobilesam"
include(":core", ":litert", ":sample") // shim and stubs are for the tests on a desktop only
