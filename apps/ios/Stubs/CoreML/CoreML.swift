// Core ML, as far as the kit uses it: arrays and features are real, a model is whatever a test makes of it.
@_exported import CoreVideo

public enum MLMultiArrayDataType: Int { case float16, float32 }

public final class MLMultiArray {
    public let shape: [NSNumber]
    public let strides: [NSNumber]
    public let dataType: MLMultiArrayDataType
    public let count: Int
    private let memory: UnsafeMutableRawBufferPointer

    public convenience init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {
        self.init(shape: shape.map(\.intValue), dataType: dataType, padding: 0)
    }

    /// Not in the real one: rows with `padding` more elements in memory.
    public init(shape: [Int], dataType: MLMultiArrayDataType, padding: Int) {
        var strides = [Int](repeating: 1, count: shape.count)
        for axis in (0..<shape.count).dropLast().reversed() {
            strides[axis] = strides[axis + 1] * shape[axis + 1] + (axis == shape.count - 2 ? padding : 0)
        }
        self.shape = shape.map { NSNumber(value: $0) }
        self.strides = strides.map { NSNumber(value: $0) }
        self.dataType = dataType
        count = shape.reduce(1, *)
        memory = .allocate(byteCount: max(strides[0] * shape[0], 1) * 4, alignment: 64)
        memory.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit { memory.deallocate() }

    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try body(UnsafeRawBufferPointer(memory))
    }

    public func withUnsafeMutableBytes<R>(_ body: (UnsafeMutableRawBufferPointer, [Int]) throws -> R) rethrows -> R {
        try body(memory, strides.map(\.intValue))
    }
}

public final class MLFeatureValue {
    public let multiArrayValue: MLMultiArray?
    public let imageBufferValue: CVPixelBuffer?

    public init(multiArray: MLMultiArray) { (multiArrayValue, imageBufferValue) = (multiArray, nil) }
    public init(pixelBuffer: CVPixelBuffer) { (multiArrayValue, imageBufferValue) = (nil, pixelBuffer) }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

public final class MLDictionaryFeatureProvider: MLFeatureProvider {
    private let values: [String: MLFeatureValue]

    public init(dictionary: [String: Any]) throws {
        values = try dictionary.mapValues { value in
            switch value {
            case let value as MLFeatureValue: return value
            case let value as MLMultiArray: return MLFeatureValue(multiArray: value)
            default: throw CocoaError(.featureUnsupported)
            }
        }
    }

    public var featureNames: Set<String> { Set(values.keys) }
    public func featureValue(for featureName: String) -> MLFeatureValue? { values[featureName] }
}

public final class MLImageConstraint {
    public let pixelsWide: Int
    public let pixelsHigh: Int
    public init(pixelsWide: Int, pixelsHigh: Int) { (self.pixelsWide, self.pixelsHigh) = (pixelsWide, pixelsHigh) }
}

public final class MLMultiArrayConstraint {
    public let shape: [NSNumber]
    public init(shape: [NSNumber]) { self.shape = shape }
}

public final class MLFeatureDescription {
    public let imageConstraint: MLImageConstraint?
    public let multiArrayConstraint: MLMultiArrayConstraint?
    public init(image: MLImageConstraint) { (imageConstraint, multiArrayConstraint) = (image, nil) }
    public init(array: MLMultiArrayConstraint) { (imageConstraint, multiArrayConstraint) = (nil, array) }
}

public struct MLModelMetadataKey: Hashable, Sendable {
    private let name: String
    public static let creatorDefinedKey = MLModelMetadataKey(name: "creatorDefined")
}

public final class MLModelDescription {
    public let inputDescriptionsByName: [String: MLFeatureDescription]
    public let metadata: [MLModelMetadataKey: Any]
    public init(inputs: [String: MLFeatureDescription], metadata: [MLModelMetadataKey: Any]) {
        (inputDescriptionsByName, self.metadata) = (inputs, metadata)
    }
}

public enum MLComputeUnits: Int, Sendable {
    case cpuOnly = 0, cpuAndGPU, all, cpuAndNeuralEngine
}

public final class MLModelConfiguration {
    public var computeUnits = MLComputeUnits.all
    public init() {}
}

open class MLModel {
    open var modelDescription: MLModelDescription { fatalError("no model here") }
    public let configuration: MLModelConfiguration

    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws { throw CocoaError(.fileReadNoSuchFile) }

    /// Not in the real one.
    public init(configuration: MLModelConfiguration) { self.configuration = configuration }

    open func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider { fatalError("no model here") }

    public static func compileModel(at modelURL: URL) async throws -> URL { throw CocoaError(.featureUnsupported) }
}
