// Apple's Core AI, as far as the adapter uses it, after the calls in github.com/apple/coreai-models. Nothing runs.

import Foundation

public struct SpecializationOptions: Sendable {
    public enum ComputeUnitKind: Sendable { case cpu, gpu, neuralEngine }
    public init(preferredComputeUnitKind: ComputeUnitKind) {}
}

public final class AIModel: Sendable {
    public init(contentsOf url: URL, options: SpecializationOptions) async throws { throw CocoaError(.featureUnsupported) }
    public func functionDescriptor(for name: String) -> InferenceFunctionDescriptor? { nil }
    public func loadFunction(named name: String) throws -> InferenceFunction? { nil }
}

public struct InferenceFunctionDescriptor: Sendable {
    public enum ValueDescriptor: Sendable { case ndArray(NDArrayDescriptor) }
    public func inputDescriptor(of name: String) -> ValueDescriptor? { nil }
}

public struct InferenceFunction: Sendable {
    public struct Value { public var ndArray: NDArray? { nil } }
    public struct Outputs {
        public mutating func remove(_ name: String) -> Value? { nil }
    }
    public func run(inputs: [String: NDArray]) async throws -> Outputs { Outputs() }
}

public struct NDArrayDescriptor: Sendable {
    public var shape: [Int] { [] }
}

public struct NDArray {
    public enum ScalarType: Sendable { case float16, float32 }
    public struct View<Scalar> {
        public func withUnsafePointer<R>(_ body: (UnsafePointer<Scalar>, [Int], [Int]) throws -> R) rethrows -> R {
            fatalError("a stub")
        }
    }
    public struct MutableView<Scalar> {
        public func withUnsafeMutablePointer<R>(
            _ body: (UnsafeMutablePointer<Scalar>, [Int], [Int]) throws -> R
        ) rethrows -> R { fatalError("a stub") }
    }
    public init(descriptor: NDArrayDescriptor) {}
    public var scalarType: ScalarType { .float32 }
    public func view<Scalar>(as type: Scalar.Type) -> View<Scalar> { View() }
    public mutating func mutableView<Scalar>(as type: Scalar.Type) -> MutableView<Scalar> { MutableView() }
}
