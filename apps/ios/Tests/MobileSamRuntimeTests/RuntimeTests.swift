import CoreML
import Foundation
import MobileSam
import MobileSamCoreML
import XCTest

/// A bundle's own ONNX files behind Core ML's class names: the whole way from a photo to a mask, but for Apple's runtime.
///
/// MOBILESAM_BUNDLE is the bundle, with `vectors/`; masks and a receipt are written to MOBILESAM_OUT.
final class RuntimeTests: XCTestCase {
    private static let environment = ProcessInfo.processInfo.environment
    private static let folder = URL(fileURLWithPath: environment["MOBILESAM_BUNDLE"] ?? "")
    private static let out = URL(fileURLWithPath: environment["MOBILESAM_OUT"] ?? "")

    func testMasksAgreeWithPyTorchAsAPictureAndAsATensor() async throws {
        let vectors = try Vectors(folder: Self.folder.appendingPathComponent("vectors"))
        let least = vectors.targets["onnx"]?.least_iou ?? 0.999
        for input in ["tensor", "picture"] {
            let segmenter = try await Self.load(input)
            var cases = 0
            for photo in vectors.photos {
                try await segmenter.setImage(vectors.pixels(photo))
                for asked in photo.cases {
                    let previous = try vectors.previousMask(asked)
                    let (mask, score) = try await segmenter.predict(
                        points: asked.promptPoints, box: asked.promptBox, previousMask: previous
                    )
                    let iou = try maskIou(mask.data, vectors.bytes(asked.mask))
                    XCTAssertGreaterThanOrEqual(iou, least, "\(input), \(photo.name), \(asked.name)")
                    XCTAssertEqual(score, asked.score, accuracy: 0.01, "\(input), \(photo.name), \(asked.name)")
                    print("\(input), \(photo.name), \(asked.name): IoU \(iou), score off by \(abs(score - asked.score))")
                    let name = "\(input)-\(photo.name)-\(asked.name).u8".replacingOccurrences(of: " ", with: "_")
                    try Data(mask.data).write(to: Self.out.appendingPathComponent(name))
                    cases += 1
                }
            }
            XCTAssertEqual(cases, 24)
        }
    }

    func testAReceiptIsMeasured() async throws {
        let vectors = try Vectors(folder: Self.folder.appendingPathComponent("vectors"))
        let segmenter = try await Self.load("tensor")
        var parts: [Double] = []
        // XCTestCase has a `measure` of its own.
        let receipt = try await MobileSam.measure(segmenter, vectors: vectors, device: machineName()) { part, _ in
            parts.append(part)
        }
        XCTAssertEqual(parts.count, 4 + 24 + 40)
        XCTAssertEqual(parts.last, 1)
        XCTAssertEqual(receipt.cases, 24)
        print("photo \(receipt.encode_ms.p50) ms, tap \(receipt.predict_ms.p50) ms, \(receipt.memory_mb ?? 0) MB")
        try receipt.json().write(to: Self.out.appendingPathComponent("receipt.json"))
    }

    func test500TapsTakeNoMemory() async throws {
        let vectors = try Vectors(folder: Self.folder.appendingPathComponent("vectors"))
        let segmenter = try await Self.load("tensor")
        try await segmenter.setImage(vectors.pixels(vectors.photos[0]))
        let tap = [PromptPoint(x: 40.5, y: 30.5)]
        var (mask, _) = try await segmenter.predict(points: tap)
        for _ in 0..<50 { (mask, _) = try await segmenter.predict(points: tap, previousMask: mask) }
        let before = try Self.residentBytes()
        for _ in 0..<500 { (mask, _) = try await segmenter.predict(points: tap, previousMask: mask) }
        let grown = try Double(Self.residentBytes() - before) / 1e6
        print("500 taps: \(grown) MB more")
        // Arrays made anew for each tap and not freed: 90 kB at S = 128, 45 MB here. What an allocator keeps is a few.
        XCTAssertLessThan(grown, 10)
    }

    private static func load(_ input: String) async throws -> Segmenter {
        let bundle = try ModelBundle(folder: folder, target: "onnx")
        try bundle.encoder.check(in: folder)
        try bundle.decoder.check(in: folder)
        return try await Segmenter.load { configuration in
            let (side, low, slots) = (bundle.model.imageSize, bundle.model.imageSize / 4, bundle.model.maxPoints ?? 8)
            let encoder = try OnnxModel(
                folder.appendingPathComponent(bundle.encoder.path), configuration,
                ["image": input == "picture" ? picture(side) : array([1, 3, side, side])], ["image_embeddings"], bundle.model
            )
            let decoder = try OnnxModel(
                folder.appendingPathComponent(bundle.decoder.path), configuration,
                [
                    "image_embeddings": array([1, 256, side / 16, side / 16]), "point_coords": array([1, slots, 2]),
                    "point_labels": array([1, slots]), "mask_input": array([1, 1, low, low]), "has_mask_input": array([1]),
                ],
                ["low_res_masks", "iou_predictions"], bundle.model
            )
            return (encoder, decoder)
        }
    }

    private static func array(_ shape: [Int]) -> MLFeatureDescription {
        MLFeatureDescription(array: MLMultiArrayConstraint(shape: shape.map { NSNumber(value: $0) }))
    }

    private static func picture(_ side: Int) -> MLFeatureDescription {
        MLFeatureDescription(image: MLImageConstraint(pixelsWide: side, pixelsHigh: side))
    }

    private static func residentBytes() throws -> Int {
        let pages = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")[1]
        return Int(pages)! * 4096
    }
}

/// An ONNX file as a model of Core ML.
private final class OnnxModel: MLModel {
    private let session: OnnxSession
    private let inputs: [String: MLFeatureDescription]
    private let outputs: [String]
    private let info: ModelInfo

    init(
        _ file: URL, _ configuration: MLModelConfiguration, _ inputs: [String: MLFeatureDescription], _ outputs: [String],
        _ info: ModelInfo
    ) throws {
        session = try OnnxSession(file)
        (self.inputs, self.outputs, self.info) = (inputs, outputs, info)
        super.init(configuration: configuration)
    }

    override var modelDescription: MLModelDescription {
        let entries = ["contract_version": "1", "precision": info.precision, "weights_sha256": info.weightsSha256]
        return MLModelDescription(inputs: inputs, metadata: [.creatorDefinedKey: entries])
    }

    override func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider {
        var tensors: [String: Tensor] = [:]
        for name in input.featureNames {
            let value = input.featureValue(for: name)!
            if let buffer = value.imageBufferValue {
                tensors[name] = planes(buffer)
            } else {
                let array = value.multiArrayValue!
                let values = array.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
                tensors[name] = Tensor(shape: array.shape.map(\.intValue), values: values)
            }
        }
        let computed = try session.run(tensors, outputs)
        return try MLDictionaryFeatureProvider(
            dictionary: Dictionary(uniqueKeysWithValues: zip(outputs, computed.map(multiArray)))
        )
    }

    /// What the Core ML encoder makes of an image: pixels of exactly the 8-bit pad colour are the mean colour.
    private func planes(_ buffer: CVPixelBuffer) -> Tensor {
        let side = info.imageSize
        CVPixelBufferLockBaseAddress(buffer, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
        let base = CVPixelBufferGetBaseAddress(buffer)!.assumingMemoryBound(to: UInt8.self)
        var tensor = Tensor(shape: [1, 3, side, side], values: [Float](repeating: 0, count: 3 * side * side))
        for y in 0..<side {
            for x in 0..<side {
                let pixel = base + y * CVPixelBufferGetBytesPerRow(buffer) + 4 * x
                let isPad = pixel[2] == 124 && pixel[1] == 116 && pixel[0] == 104
                let colour: [Float] = isPad ? [123.675, 116.28, 103.53] : [Float(pixel[2]), Float(pixel[1]), Float(pixel[0])]
                for channel in 0..<3 { tensor.values[(channel * side + y) * side + x] = colour[channel] }
            }
        }
        return tensor
    }

    /// With padded rows, as the Neural Engine may give them.
    private func multiArray(_ tensor: Tensor) -> MLMultiArray {
        let array = MLMultiArray(shape: tensor.shape, dataType: .float32, padding: tensor.shape.count == 4 ? 16 : 0)
        let width = tensor.shape.last!
        array.withUnsafeMutableBytes { bytes, strides in
            let floats = bytes.bindMemory(to: Float.self)
            let stride = strides.count > 1 ? strides[strides.count - 2] : width
            for at in tensor.values.indices { floats[at / width * stride + at % width] = tensor.values[at] }
        }
        return array
    }
}
