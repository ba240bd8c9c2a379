#if canImport(CoreML)
    import CoreML
    import CoreVideo
    import Foundation
    import MobileSam

    /// Both models in Core ML.
    ///
    /// The decoder's inputs are made once and written anew for each tap; the embedding is copied when another photo is asked about.
    public final class CoreMLEngine: Engine {
        public let description: String
        private let encoder: MLModel
        private let decoder: MLModel
        private let image: ImageInput
        private let coords: MLMultiArray
        private let labels: MLMultiArray
        private let maskInput: MLMultiArray
        private let hasMaskInput: MLMultiArray
        private let embeddings: MLMultiArray
        private var current: Embedding?

        public init(encoder: MLModel, decoder: MLModel) throws {
            self.encoder = encoder
            self.decoder = decoder
            image = try ImageInput(of: encoder)
            coords = try input("point_coords", of: decoder)
            labels = try input("point_labels", of: decoder)
            maskInput = try input("mask_input", of: decoder)
            hasMaskInput = try input("has_mask_input", of: decoder)
            embeddings = try input("image_embeddings", of: decoder)
            description = "Core ML, \(encoder.configuration.computeUnits.forPeople)"
        }

        public func encode(_ photo: RGBImage) throws -> Embedding {
            let outputs = try encoder.prediction(from: MLDictionaryFeatureProvider(dictionary: ["image": image.value(photo)]))
            return try Embedding(floats("image_embeddings", of: outputs))
        }

        public func decode(_ embedding: Embedding, _ slots: Slots, mask: [Float]?) throws -> Decoded {
            if embedding !== current {
                current = nil
                try write(embedding.values, into: embeddings)
                current = embedding
            }
            try write(slots.coords, into: coords)
            try write(slots.labels, into: labels)
            try write(mask ?? [Float](repeating: 0, count: maskInput.count), into: maskInput)
            try write([mask == nil ? 0 : 1], into: hasMaskInput)
            let inputs = [
                "image_embeddings": embeddings, "point_coords": coords, "point_labels": labels,
                "mask_input": maskInput, "has_mask_input": hasMaskInput,
            ]
            let outputs = try decoder.prediction(from: MLDictionaryFeatureProvider(dictionary: inputs))
            return try Decoded(
                logits: floats("low_res_masks", of: outputs), iouPredictions: floats("iou_predictions", of: outputs)
            )
        }
    }

    extension ModelInfo {
        /// What the models say of themselves, in the entries that the export wrote and in their shapes.
        public init(encoder: MLModel, decoder: MLModel) throws {
            let entries = decoder.modelDescription.metadata[.creatorDefinedKey] as? [String: String] ?? [:]
            guard let version = entries["contract_version"] else { throw notOurs("no contract_version") }
            try checkContractVersion(version)
            let slots = try constraint("point_labels", of: decoder).shape[1].intValue
            let side = try constraint("mask_input", of: decoder).shape[3].intValue * 4
            try self.init(
                imageSize: side, maxPoints: slots, precision: entries["precision"] ?? "not said",
                weightsSha256: entries["weights_sha256"] ?? "not said", notice: nil
            )
            guard try ImageInput(of: encoder).side == side else { throw notOurs("encoder and decoder of two sizes") }
        }
    }

    /// The encoder's input: a picture, or with `--image-input tensor` numbers.
    private enum ImageInput {
        case picture(CVPixelBuffer, side: Int)
        case tensor(MLMultiArray, side: Int)

        init(of encoder: MLModel) throws {
            let description = encoder.modelDescription.inputDescriptionsByName["image"]
            if let picture = description?.imageConstraint {
                guard picture.pixelsWide == picture.pixelsHigh else { throw notOurs("an image that is not square") }
                var buffer: CVPixelBuffer?
                let options = [kCVPixelBufferIOSurfacePropertiesKey: [String: String]()] as CFDictionary
                CVPixelBufferCreate(nil, picture.pixelsWide, picture.pixelsHigh, kCVPixelFormatType_32BGRA, options, &buffer)
                guard let buffer else { throw SegmenterError(.engine, "no memory for the encoder's input; close other apps") }
                self = .picture(buffer, side: picture.pixelsWide)
            } else {
                let tensor = try input("image", of: encoder)
                self = .tensor(tensor, side: tensor.shape[3].intValue)
            }
        }

        var side: Int {
            switch self {
            case .picture(_, let side), .tensor(_, let side): return side
            }
        }

        func value(_ photo: RGBImage) throws -> MLFeatureValue {
            switch self {
            case .picture(let buffer, let side):
                fill(buffer, with: modelFrame8Bit(photo, imageSize: side, layout: .nhwc), side: side)
                return MLFeatureValue(pixelBuffer: buffer)
            case .tensor(let tensor, let side):
                try write(modelFrame(photo, imageSize: side, layout: .nchw), into: tensor)
                return MLFeatureValue(multiArray: tensor)
            }
        }
    }

    /// Bytes are written as they are: no colour management touches them.
    private func fill(_ buffer: CVPixelBuffer, with frame: [UInt8], side: Int) {
        CVPixelBufferLockBaseAddress(buffer, [])
        defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
        guard let base = CVPixelBufferGetBaseAddress(buffer) else { return }
        for y in 0..<side {
            let row = (base + y * CVPixelBufferGetBytesPerRow(buffer)).assumingMemoryBound(to: UInt8.self)
            for x in 0..<side {
                let from = 3 * (y * side + x)
                row[4 * x] = frame[from + 2]
                row[4 * x + 1] = frame[from + 1]
                row[4 * x + 2] = frame[from]
                row[4 * x + 3] = 255
            }
        }
    }

    private func constraint(_ name: String, of model: MLModel) throws -> MLMultiArrayConstraint {
        guard let found = model.modelDescription.inputDescriptionsByName[name]?.multiArrayConstraint else {
            throw notOurs("no input \(name)")
        }
        return found
    }

    /// An array for an input, of the shape that the model declares.
    private func input(_ name: String, of model: MLModel) throws -> MLMultiArray {
        try MLMultiArray(shape: constraint(name, of: model).shape, dataType: .float32)
    }

    private func write(_ values: [Float], into array: MLMultiArray) throws {
        guard values.count == array.count else {
            throw SegmenterError(.engine, "got \(values.count) values for an input of \(array.shape); export the models again")
        }
        array.withUnsafeMutableBytes { bytes, _ in values.withUnsafeBytes { bytes.copyMemory(from: $0) } }
    }

    /// An output's values in their order; rows may be padded in memory, as the Neural Engine likes it.
    private func floats(_ name: String, of outputs: MLFeatureProvider) throws -> [Float] {
        guard let array = outputs.featureValue(for: name)?.multiArrayValue, array.dataType == .float32 else {
            throw SegmenterError(.engine, "the models have no float32 output \(name); export them again")
        }
        let shape = array.shape.map(\.intValue)
        let strides = array.strides.map(\.intValue)
        var values = [Float](repeating: 0, count: array.count)
        array.withUnsafeBytes { bytes in
            let stored = bytes.bindMemory(to: Float.self)
            var place = [Int](repeating: 0, count: shape.count)
            var offset = 0
            for at in values.indices {
                values[at] = stored[offset]
                // The next place, the last axis first.
                var axis = shape.count - 1
                while axis >= 0 {
                    place[axis] += 1
                    offset += strides[axis]
                    if place[axis] < shape[axis] { break }
                    offset -= strides[axis] * shape[axis]
                    place[axis] = 0
                    axis -= 1
                }
            }
        }
        return values
    }

    private func notOurs(_ what: String) -> SegmenterError {
        SegmenterError(.modelFile, "the models are not ours (\(what)); export them with --target coreml")
    }

    extension MLComputeUnits {
        /// For descriptions and menus.
        public var forPeople: String {
            switch self {
            case .all: return "all units"
            case .cpuAndGPU: return "CPU and GPU"
            case .cpuAndNeuralEngine: return "CPU and Neural Engine"
            case .cpuOnly: return "CPU"
            @unknown default: return "units \(rawValue)"
            }
        }
    }
#endif
