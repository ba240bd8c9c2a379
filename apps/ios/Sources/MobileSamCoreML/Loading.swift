#if canImport(CoreML)
    import CoreML
    import Foundation
    import MobileSam

    /// The encoder and the decoder in Core ML.
    public typealias Models = (encoder: MLModel, decoder: MLModel)

    extension Segmenter {
        /// A segmenter over the models whose classes Xcode generates from the two packages:
        ///
        ///     try await Segmenter.load { configuration in
        ///         let encoder = try mobile_sam_encoder(configuration: configuration)
        ///         let decoder = try mobile_sam_decoder(configuration: configuration)
        ///         return (encoder.model, decoder.model)
        ///     }
        ///
        /// - Parameters:
        ///   - computeUnits: where the models may run. After a failure they are loaded again, for the CPU alone.
        ///   - models: loads both. Called off the main thread.
        public static func load(
            computeUnits: MLComputeUnits = .all, models: @escaping @Sendable (MLModelConfiguration) throws -> Models
        ) async throws -> Segmenter {
            let opener = try Opener(computeUnits: computeUnits, models: models)
            let segmenter = Segmenter(model: opener.info) { try opener.open() }
            try await segmenter.open()
            return segmenter
        }

        /// A segmenter over a bundle in a folder, such as one that the app has downloaded: `manifest.json` and `coreml/`.
        ///
        /// The packages are compared with the manifest, then compiled for this device; that is kept among the app's caches.
        public static func load(folder: URL, computeUnits: MLComputeUnits = .all) async throws -> Segmenter {
            let bundle = try ModelBundle(folder: folder)
            let encoder = try await compiled(bundle.encoder, in: folder)
            let decoder = try await compiled(bundle.decoder, in: folder)
            return try await load(computeUnits: computeUnits) { configuration in
                try (
                    MLModel(contentsOf: encoder, configuration: configuration),
                    MLModel(contentsOf: decoder, configuration: configuration)
                )
            }
        }
    }

    /// Loads the models once for the asked units, and after a failure for the CPU. Used by one thread at a time.
    private final class Opener: @unchecked Sendable {
        let info: ModelInfo
        private let models: (MLModelConfiguration) throws -> Models
        private var first: CoreMLEngine?

        init(computeUnits: MLComputeUnits, models: @escaping (MLModelConfiguration) throws -> Models) throws {
            self.models = models
            let (encoder, decoder) = try load(models, computeUnits)
            info = try ModelInfo(encoder: encoder, decoder: decoder)
            first = try CoreMLEngine(encoder: encoder, decoder: decoder)
        }

        func open() throws -> CoreMLEngine {
            if let opened = first {
                first = nil
                return opened
            }
            let (encoder, decoder) = try load(models, .cpuOnly)
            return try CoreMLEngine(encoder: encoder, decoder: decoder)
        }
    }

    private func load(_ models: (MLModelConfiguration) throws -> Models, _ computeUnits: MLComputeUnits) throws -> Models {
        try explaining(.engine, "Core ML cannot load the models; export them again, for this system or an older one") {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = computeUnits
            return try models(configuration)
        }
    }

    /// A package of a bundle, checked and compiled for this device; compiled models are kept under the package's sha256.
    private func compiled(_ file: ModelFile, in folder: URL) async throws -> URL {
        try file.check(in: folder)
        let caches = FileManager.default.urls(for: .cachesDirectory, in: .userDomainMask)[0]
        let kept = caches.appendingPathComponent("mobilesam/\(file.sha256).mlmodelc")
        if FileManager.default.fileExists(atPath: kept.path) { return kept }
        do {
            let made = try await MLModel.compileModel(at: folder.appendingPathComponent(file.path))
            try FileManager.default.createDirectory(at: kept.deletingLastPathComponent(), withIntermediateDirectories: true)
            try FileManager.default.moveItem(at: made, to: kept)
        } catch {
            if FileManager.default.fileExists(atPath: kept.path) { return kept }  // another load was faster
            throw SegmenterError(
                .modelFile, "\(file.path) cannot be compiled (\(error.localizedDescription)); copy it again"
            )
        }
        return kept
    }
#endif
