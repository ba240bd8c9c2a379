import COnnxRuntime
import Foundation

/// A tensor of float32.
struct Tensor {
    let shape: [Int]
    var values: [Float]
}

/// One ONNX file in ONNX Runtime, through its C API. The library is that of MOBILESAM_ONNXRUNTIME.
final class OnnxSession {
    nonisolated(unsafe) private static let api: UnsafePointer<OrtApi> = {  // a table that nobody changes
        guard let path = ProcessInfo.processInfo.environment["MOBILESAM_ONNXRUNTIME"], let library = dlopen(path, RTLD_NOW),
            let symbol = dlsym(library, "OrtGetApiBase")
        else { fatalError("MOBILESAM_ONNXRUNTIME is no library of ONNX Runtime: \(String(cString: dlerror()))") }
        typealias GetApiBase = @convention(c) () -> UnsafePointer<OrtApiBase>
        let base = unsafeBitCast(symbol, to: GetApiBase.self)()
        guard let api = base.pointee.GetApi(UInt32(ORT_API_VERSION)) else { fatalError("a library older than its header") }
        return api
    }()

    private var environment: OpaquePointer?
    private var session: OpaquePointer?
    private var memory: OpaquePointer?

    init(_ file: URL) throws {
        let api = Self.api.pointee
        try Self.check(api.CreateEnv(ORT_LOGGING_LEVEL_WARNING, "mobilesam", &environment))
        var options: OpaquePointer?
        try Self.check(api.CreateSessionOptions(&options))
        defer { api.ReleaseSessionOptions(options) }
        try Self.check(api.SetIntraOpNumThreads(options, 1))
        try Self.check(api.CreateSession(environment, file.path, options, &session))
        try Self.check(api.CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory))
    }

    deinit {
        let api = Self.api.pointee
        api.ReleaseMemoryInfo(memory)
        api.ReleaseSession(session)
        api.ReleaseEnv(environment)
    }

    func run(_ inputs: [String: Tensor], _ outputNames: [String]) throws -> [Tensor] {
        let api = Self.api.pointee
        var memories: [UnsafeMutablePointer<Float>] = []
        var values: [OpaquePointer?] = []
        var outputs = [OpaquePointer?](repeating: nil, count: outputNames.count)
        defer {
            (values + outputs).forEach { api.ReleaseValue($0) }
            memories.forEach { $0.deallocate() }
        }
        for tensor in inputs.values {
            let count = tensor.values.count
            let floats = UnsafeMutablePointer<Float>.allocate(capacity: count)
            floats.initialize(from: tensor.values, count: count)
            memories.append(floats)
            var value: OpaquePointer?
            try Self.check(
                api.CreateTensorWithDataAsOrtValue(
                    memory, floats, 4 * count, tensor.shape.map(Int64.init), tensor.shape.count,
                    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value
                )
            )
            values.append(value)
        }
        try Self.withCStrings(Array(inputs.keys)) { names in
            try Self.withCStrings(outputNames) { outputNames in
                try Self.check(api.Run(session, nil, names, values, values.count, outputNames, outputNames.count, &outputs))
            }
        }
        return try outputs.map { try Self.tensor($0) }
    }

    private static func tensor(_ value: OpaquePointer?) throws -> Tensor {
        let api = Self.api.pointee
        var info: OpaquePointer?
        try check(api.GetTensorTypeAndShape(value, &info))
        defer { api.ReleaseTensorTypeAndShapeInfo(info) }
        var rank = 0
        try check(api.GetDimensionsCount(info, &rank))
        var shape = [Int64](repeating: 0, count: rank)
        try check(api.GetDimensions(info, &shape, rank))
        var bytes: UnsafeMutableRawPointer?
        try check(api.GetTensorMutableData(value, &bytes))
        let count = Int(shape.reduce(1, *))
        let floats = UnsafeBufferPointer(start: bytes!.assumingMemoryBound(to: Float.self), count: count)
        return Tensor(shape: shape.map(Int.init), values: Array(floats))
    }

    private static func check(_ status: OpaquePointer?) throws {
        guard let status else { return }
        defer { api.pointee.ReleaseStatus(status) }
        let message = api.pointee.GetErrorMessage(status).map { String(cString: $0) } ?? "no message"
        throw NSError(domain: "ONNX Runtime", code: 1, userInfo: [NSLocalizedDescriptionKey: message])
    }

    private static func withCStrings<R>(_ strings: [String], _ body: ([UnsafePointer<CChar>?]) throws -> R) rethrows -> R {
        let copies = strings.map { strdup($0) }
        defer { copies.forEach { free($0) } }
        return try body(copies.map { UnsafePointer($0) })
    }
}
