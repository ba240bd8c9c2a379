// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "MobileSam",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "MobileSam", targets: ["MobileSam", "MobileSamCoreML", "MobileSamCoreAI", "MobileSamUI"])],
    targets: [
        .target(name: "MobileSam"),
        .target(name: "MobileSamCoreML", dependencies: ["MobileSam"]),
        .target(name: "MobileSamCoreAI", dependencies: ["MobileSam"]),
        .target(name: "MobileSamUI", dependencies: ["MobileSam"]),
        .testTarget(name: "MobileSamTests", dependencies: ["MobileSam"]),
    ]
)

#if os(Linux)
    // Apple's modules, as far as the code here uses them: Stubs/ makes that code compile, and the adapter run in tests.
    let needs = [
        "CoreGraphics": [], "CoreVideo": ["CoreGraphics"], "CoreML": ["CoreVideo"], "CoreAI": [],
        "ImageIO": ["CoreGraphics"], "UniformTypeIdentifiers": [], "SwiftUI": ["CoreGraphics", "UniformTypeIdentifiers"], "PhotosUI": ["SwiftUI"],
    ]
    for (name, others) in needs {
        package.targets.append(.target(name: name, dependencies: others.map { .byName(name: $0) }, path: "Stubs/\(name)"))
    }
    for target in package.targets {
        if target.name == "MobileSamCoreML" { target.dependencies += ["CoreML", "CoreVideo", "ImageIO"] }
        if target.name == "MobileSamCoreAI" { target.dependencies += ["CoreAI"] }
        if target.name == "MobileSamUI" { target.dependencies += ["SwiftUI"] }
    }
    package.targets += [
        .target(
            name: "Sample", dependencies: ["MobileSamCoreML", "MobileSamUI", "PhotosUI"], path: ".",
            exclude: ["README.md", "Sources", "Tests", "Sample/Sample.xcodeproj"] + needs.keys.map { "Stubs/\($0)" },
            sources: ["Sample/Sample", "Stubs/Generated"]
        ),
        .testTarget(name: "MobileSamAppleTests", dependencies: ["MobileSamCoreML", "MobileSamUI"]),
    ]
    // The library of ONNX Runtime: then the models themselves run, through its C API.
    if Context.environment["MOBILESAM_ONNXRUNTIME"] != nil {
        package.targets += [
            .systemLibrary(name: "COnnxRuntime", path: "Tests/COnnxRuntime"),
            .testTarget(name: "MobileSamRuntimeTests", dependencies: ["COnnxRuntime", "MobileSamCoreML"]),
        ]
    }
#endif
