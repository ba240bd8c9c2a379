import CoreML
import Foundation

/// A model that does what a test says, and keeps what it was given.
final class FakeModel: MLModel {
    private let inputs: [String: MLFeatureDescription]
    private let entries: [String: String]
    private let compute: (any MLFeatureProvider) throws -> [String: Any]

    init(
        _ inputs: [String: MLFeatureDescription], entries: [String: String] = [:],
        configuration: MLModelConfiguration = MLModelConfiguration(),
        compute: @escaping (any MLFeatureProvider) throws -> [String: Any]
    ) {
        (self.inputs, self.entries, self.compute) = (inputs, entries, compute)
        super.init(configuration: configuration)
    }

    override var modelDescription: MLModelDescription {
        MLModelDescription(inputs: inputs, metadata: [.creatorDefinedKey: entries])
    }

    override func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider {
        try MLDictionaryFeatureProvider(dictionary: compute(input))
    }
}

func arrayInput(_ shape: [Int]) -> MLFeatureDescription {
    MLFeatureDescription(array: MLMultiArrayConstraint(shape: shape.map { NSNumber(value: $0) }))
}

func imageInput(_ side: Int) -> MLFeatureDescription {
    MLFeatureDescription(image: MLImageConstraint(pixelsWide: side, pixelsHigh: side))
}

/// Inputs of a decoder for S and `slots`.
func decoderInputs(side: Int, slots: Int = 8) -> [String: MLFeatureDescription] {
    [
        "image_embeddings": arrayInput([1, 2, side / 16, side / 16]), "point_coords": arrayInput([1, slots, 2]),
        "point_labels": arrayInput([1, slots]), "mask_input": arrayInput([1, 1, side / 4, side / 4]),
        "has_mask_input": arrayInput([1]),
    ]
}

/// Values in an array whose rows have `padding` more elements in memory.
func array(_ shape: [Int], padding: Int = 0, _ value: (_ at: Int) -> Float) -> MLMultiArray {
    let made = MLMultiArray(shape: shape, dataType: .float32, padding: padding)
    made.withUnsafeMutableBytes { bytes, strides in
        let floats = bytes.bindMemory(to: Float.self)
        for at in 0..<made.count {
            var (rest, offset) = (at, 0)
            for axis in shape.indices.reversed() {
                offset += rest % shape[axis] * strides[axis]
                rest /= shape[axis]
            }
            floats[offset] = value(at)
        }
    }
    return made
}

/// The values of an unpadded array.
func values(_ name: String, of input: any MLFeatureProvider) -> [Float] {
    input.featureValue(for: name)!.multiArrayValue!.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
}
