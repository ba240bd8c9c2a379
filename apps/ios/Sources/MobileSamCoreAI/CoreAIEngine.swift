#if canImport(CoreAI)
    import CoreAI
    import Foundation
    import MobileSam

    /// The asset's functions `encode` and `decode` in Core AI.
    ///
    /// Compiled against a stub of Apple's module (Stubs/CoreAI), written after Apple's own sources
    /// (github.com/apple/coreai-models); neither compiled with Apple's SDK nor run on a device here.
    @available(iOS 27, macOS 27, *)
    public final class CoreAIEngine: Engine {
        public let description = "Core AI, Neural Engine preferred"
        private let encoder: Function
        private let decoder: Function
        private let imageSize: Int

        public init(model: AIModel, imageSize: Int) throws {
            encoder = try Function("encode", of: model)
            decoder = try Function("decode", of: model)
            self.imageSize = imageSize
        }

        public func encode(_ photo: RGBImage) throws -> Embedding {
            let image = modelFrame(photo, imageSize: imageSize, layout: .nchw)
            let outputs = try encoder.run(["image": image], outputs: ["image_embeddings"])
            return Embedding(outputs[0])
        }

        public func decode(_ embedding: Embedding, _ slots: Slots, mask: [Float]?) throws -> Decoded {
            let side = imageSize / 4
            let inputs: [String: [Float]] = [
                "image_embeddings": embedding.values, "point_coords": slots.coords, "point_labels": slots.labels,
                "mask_input": mask ?? [Float](repeating: 0, count: side * side), "has_mask_input": [mask == nil ? 0 : 1],
            ]
            let outputs = try decoder.run(inputs, outputs: ["low_res_masks", "iou_predictions"])
            return Decoded(logits: outputs[0], iouPredictions: outputs[1])
        }
    }

    @available(iOS 27, macOS 27, *)
    extension Segmenter {
        /// A segmenter over a bundle in a folder: `manifest.json` and `coreai/`.
        ///
        /// The asset is compared with the manifest, then specialised for this device, which the system keeps; the first
        /// time takes long. After a failure it is loaded again.
        public static func loadCoreAI(folder: URL) async throws -> Segmenter {
            let bundle = try ModelBundle(folder: folder, target: "coreai")
            guard bundle.encoder == bundle.decoder else { throw notOurs("two assets instead of one") }
            try bundle.encoder.check(in: folder)
            let asset = folder.appendingPathComponent(bundle.encoder.path)
            let size = bundle.model.imageSize
            let segmenter = Segmenter(model: bundle.model) {
                let model = try waiting {
                    let options = SpecializationOptions(preferredComputeUnitKind: .neuralEngine)
                    return try await AIModel(contentsOf: asset, options: options)
                }
                return try CoreAIEngine(model: model, imageSize: size)
            }
            try await segmenter.open()
            return segmenter
        }
    }

    /// A function and its inputs' forms.
    @available(iOS 27, macOS 27, *)
    private struct Function: @unchecked Sendable {  // a segmenter's engine is used by one thread at a time
        private let name: String
        private let function: InferenceFunction
        private let descriptor: InferenceFunctionDescriptor

        init(_ name: String, of model: AIModel) throws {
            guard let descriptor = model.functionDescriptor(for: name), let function = try model.loadFunction(named: name)
            else { throw notOurs("no function \(name)") }
            self.name = name
            self.function = function
            self.descriptor = descriptor
        }

        /// Values by the inputs' names, in row-major order, to those of the outputs that are named.
        func run(_ values: [String: [Float]], outputs wanted: [String]) throws -> [[Float]] {
            try waiting {
                var inputs: [String: NDArray] = [:]
                for (input, numbers) in values {
                    guard case .ndArray(let form) = descriptor.inputDescriptor(of: input) else {
                        throw notOurs("no input \(input)")
                    }
                    guard form.shape.reduce(1, *) == numbers.count else {
                        throw SegmenterError(
                            .engine, "got \(numbers.count) values for an input of \(form.shape); export the models again"
                        )
                    }
                    var array = NDArray(descriptor: form)
                    write(numbers, into: &array)
                    inputs[input] = array
                }
                var found = try await function.run(inputs: inputs)
                return try wanted.map { output in
                    guard let array = found.remove(output)?.ndArray, array.scalarType == .float32 else {
                        throw SegmenterError(.engine, "the models have no float32 output \(output); export them again")
                    }
                    return floats(of: array)
                }
            }
        }
    }

    /// Rows may be padded in memory, as the Neural Engine likes it.
    @available(iOS 27, macOS 27, *)
    private func write(_ values: [Float], into array: inout NDArray) {
        let view = array.mutableView(as: Float.self)
        view.withUnsafeMutablePointer { memory, shape, strides in
            var place = Place(rank: shape.count)
            for value in values {
                memory[place.offset] = value
                place.advance({ shape[$0] }, { strides[$0] })
            }
        }
    }

    @available(iOS 27, macOS 27, *)
    private func floats(of array: NDArray) -> [Float] {
        array.view(as: Float.self).withUnsafePointer { memory, shape, strides in
            var count = 1
            for axis in 0..<shape.count { count *= shape[axis] }
            var place = Place(rank: shape.count)
            return (0..<count).map { _ in
                defer { place.advance({ shape[$0] }, { strides[$0] }) }
                return memory[place.offset]
            }
        }
    }

    /// Where the next element lies, in row-major order.
    private struct Place {
        private(set) var offset = 0
        private var at: [Int]

        init(rank: Int) { at = [Int](repeating: 0, count: rank) }

        mutating func advance(_ shape: (Int) -> Int, _ strides: (Int) -> Int) {
            var axis = at.count - 1
            while axis >= 0 {
                at[axis] += 1
                offset += strides(axis)
                if at[axis] < shape(axis) { return }
                offset -= strides(axis) * shape(axis)
                at[axis] = 0
                axis -= 1
            }
        }
    }

    /// What an asynchronous call answers; the segmenter's own queue waits for it, never a task of Swift's pool.
    private func waiting<Answer>(_ answer: @escaping () async throws -> Answer) throws -> Answer {
        let box = Box<Answer>(answer)
        let done = DispatchSemaphore(value: 0)
        Task.detached {
            do { box.answer = .success(try await box.work()) } catch { box.answer = .failure(error) }
            done.signal()
        }
        done.wait()
        return try explaining(.engine, "Core AI cannot run the models; export them again") { try box.answer!.get() }
    }

    private final class Box<Answer>: @unchecked Sendable {  // written by one task before another thread reads it
        let work: () async throws -> Answer
        var answer: Result<Answer, Error>?

        init(_ work: @escaping () async throws -> Answer) { self.work = work }
    }

    private func notOurs(_ what: String) -> SegmenterError {
        SegmenterError(.modelFile, "the models are not ours (\(what)); export them with --target coreai")
    }
#endif
