import CoreML
import MobileSam
import MobileSamCoreML
import XCTest

/// What the adapter hands to Core ML, and what it takes from it.
final class CoreMLEngineTests: XCTestCase {
    private let side = 32
    private let photo = RGBImage(size: PixelSize(width: 2, height: 1), data: [1, 2, 3, 4, 5, 6])
    private let slots = promptSlots(
        [PromptPoint(x: 1, y: 0)], box: nil, photo: PixelSize(width: 2, height: 1), imageSize: 32, maxPoints: 8
    )

    func testAPhotoIsHandedOverAsBGRABytesInThePadColour() throws {
        var seen: [[UInt8]] = []
        let encoder = FakeModel(["image": imageInput(side)]) { input in
            let buffer = input.featureValue(for: "image")!.imageBufferValue!
            CVPixelBufferLockBaseAddress(buffer, .readOnly)
            defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
            let base = CVPixelBufferGetBaseAddress(buffer)!.assumingMemoryBound(to: UInt8.self)
            let bytesPerRow = CVPixelBufferGetBytesPerRow(buffer)
            seen = [0, 1, self.side - 1].map { y in (0..<16).map { base[y * bytesPerRow + $0] } }
            return ["image_embeddings": array([1, 2, 2, 2], padding: 3) { Float($0) }]
        }
        let engine = try CoreMLEngine(encoder: encoder, decoder: FakeModel(decoderInputs(side: side)) { _ in [:] })
        let pad: [UInt8] = [104, 116, 124, 255]
        // Rows of the output are padded in memory: they are read in their order all the same.
        try XCTAssertEqual(engine.encode(photo).values, [0, 1, 2, 3, 4, 5, 6, 7])
        let top: [UInt8] = [3, 2, 1, 255, 6, 5, 4, 255]
        let padding: [UInt8] = pad + pad
        XCTAssertEqual(seen, [top + padding, padding + padding, padding + padding])
        XCTAssertEqual(engine.description, "Core ML, all units")
    }

    func testATensorInputGetsTheExactPadColour() throws {
        var seen: [Float] = []
        let encoder = FakeModel(["image": arrayInput([1, 3, side, side])]) { input in
            seen = values("image", of: input)
            return ["image_embeddings": array([1, 2, 2, 2]) { Float($0) }]
        }
        let engine = try CoreMLEngine(encoder: encoder, decoder: FakeModel(decoderInputs(side: side)) { _ in [:] })
        _ = try engine.encode(photo)
        XCTAssertEqual(seen, modelFrame(photo, imageSize: side, layout: .nchw))
    }

    func testATapIsHandedOverByNameAndAnEmbeddingCopiedOnce() throws {
        var seen: [[Float]] = []
        var embeddings: [ObjectIdentifier] = []
        let decoder = FakeModel(decoderInputs(side: side)) { input in
            seen = ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input"].map { values($0, of: input) }
            embeddings.append(ObjectIdentifier(input.featureValue(for: "image_embeddings")!.multiArrayValue!))
            return [
                "low_res_masks": array([1, 4, 8, 8], padding: 24) { Float($0) }, "iou_predictions": array([1, 4]) { Float($0) / 10 },
            ]
        }
        let engine = try CoreMLEngine(encoder: FakeModel(["image": imageInput(side)]) { _ in [:] }, decoder: decoder)
        let embedding = Embedding([1, 2, 3, 4, 5, 6, 7, 8])
        let decoded = try engine.decode(embedding, slots, mask: nil)
        XCTAssertEqual(decoded.logits, (0..<256).map(Float.init))
        XCTAssertEqual(decoded.iouPredictions, [0, 0.1, 0.2, 0.3])
        XCTAssertEqual(seen, [embedding.values, slots.coords, slots.labels, [Float](repeating: 0, count: 64), [0]])
        let mask = (0..<64).map { Float($0) - 32 }
        _ = try engine.decode(Embedding([8, 7, 6, 5, 4, 3, 2, 1]), slots, mask: mask)
        XCTAssertEqual(seen, [[8, 7, 6, 5, 4, 3, 2, 1], slots.coords, slots.labels, mask, [1]])
        _ = try engine.decode(embedding, slots, mask: nil)
        XCTAssertEqual(seen[0], embedding.values)
        XCTAssertEqual(Set(embeddings).count, 1)
    }

    func testModelsThatAreNotOursAreRefused() async throws {
        let ours = ["contract_version": "1", "precision": "float16", "weights_sha256": "abc"]
        func info(_ encoder: [String: MLFeatureDescription], _ decoder: [String: MLFeatureDescription], _ entries: [String: String]) throws -> ModelInfo {
            try ModelInfo(encoder: FakeModel(encoder) { _ in [:] }, decoder: FakeModel(decoder, entries: entries) { _ in [:] })
        }
        let good = try info(["image": imageInput(64)], decoderInputs(side: 64, slots: 5), ours)
        XCTAssertEqual(good, try ModelInfo(imageSize: 64, maxPoints: 5, precision: "float16", weightsSha256: "abc", notice: nil))
        func code(_ side: Int, _ entries: [String: String], without: String = "") -> ErrorCode? {
            var inputs = decoderInputs(side: 64)
            inputs[without] = nil
            do {
                _ = try info(["image": imageInput(side)], inputs, entries)
                return nil
            } catch {
                return (error as? SegmenterError)?.code
            }
        }
        XCTAssertEqual(code(64, [:]), .modelFile)
        XCTAssertEqual(code(64, ["contract_version": "2"]), .contractVersion)
        XCTAssertEqual(code(128, ours), .modelFile)
        XCTAssertEqual(code(64, ours, without: "mask_input"), .modelFile)
    }

    func testAfterAFailureTheModelsAreLoadedAgainForTheCPU() async throws {
        let state = State()
        let segmenter = try await Segmenter.load(computeUnits: .cpuAndNeuralEngine) { configuration in
            state.asked.append(configuration.computeUnits)
            let encoder = FakeModel(["image": imageInput(32)], configuration: configuration) { _ in
                if state.isFailing { throw CocoaError(.featureUnsupported) }
                return ["image_embeddings": array([1, 2, 2, 2]) { Float($0) }]
            }
            return (encoder, FakeModel(decoderInputs(side: 32), entries: ["contract_version": "1"]) { _ in [:] })
        }
        XCTAssertEqual(segmenter.description, "Core ML, CPU and Neural Engine")
        XCTAssertEqual(state.asked, [.cpuAndNeuralEngine])
        state.isFailing = true
        await expect(.engine) { try await segmenter.setImage(photo) }
        state.isFailing = false
        try await segmenter.setImage(photo)
        XCTAssertEqual(segmenter.description, "Core ML, CPU")
        XCTAssertEqual(state.asked, [.cpuAndNeuralEngine, .cpuOnly])
        await expect(.engine) { _ = try await segmenter.predict(points: [PromptPoint(x: 1, y: 0)]) }  // it has no outputs
    }

    func testModelsThatCannotBeLoadedAreSaidInOneSentence() async {
        await expect(.engine) { _ = try await Segmenter.load { _ in throw CocoaError(.fileReadNoSuchFile) } }
        let nowhere = URL(fileURLWithPath: "/nowhere")
        await expect(.modelFile) { _ = try await Segmenter.load(folder: nowhere) }
    }
}

private final class State: @unchecked Sendable {
    var asked: [MLComputeUnits] = []
    var isFailing = false
}

func expect(
    _ code: ErrorCode, file: StaticString = #filePath, line: UInt = #line, isolation: isolated (any Actor)? = #isolation,
    _ call: () async throws -> Void
) async {
    do {
        try await call()
        XCTFail("nothing was thrown", file: file, line: line)
    } catch {
        XCTAssertEqual((error as? SegmenterError)?.code, code, "\(error)", file: file, line: line)
    }
}
