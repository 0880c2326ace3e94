plugins {
    id("com.android.library")
}

// A bundle that was made with ANDROID_NDK_HOME set: edgesdk bundle model.edge --targets android
val bundle: String = providers.gradleProperty("edgeBundle").orNull
    ?: throw GradleException("give -PedgeBundle=PATH, the android folder of a bundle")
require(file("$bundle/lib/libedge.so").isFile) {
    "$bundle has no lib/libedge.so: bundle again with ANDROID_NDK_HOME set"
}

android {
    namespace = "edgesdk"
    compileSdk = 35
    System.getenv("ANDROID_NDK_HOME")?.let { ndkPath = it }

    defaultConfig {
        minSdk = 28 // android_api of the target profile
        ndk { abiFilters += "arm64-v8a" }
        consumerProguardFiles("consumer-rules.pro")
        externalNativeBuild {
            cmake {
                arguments += listOf("-Dedge_DIR=$bundle/lib/cmake/edge", "-DANDROID_STL=none")
            }
        }
    }
    externalNativeBuild {
        cmake { path = file("$bundle/java/CMakeLists.txt") }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
    sourceSets["main"].java.srcDirs("$bundle/java/src")
}
