import Foundation
import XCTest

@testable import MobileSam

private let photo = MadeUpPhoto(PixelSize(width: 40, height: 20))
private let tap = [PromptPoint(x: 3, y: 4)]

/// The host API over an engine that is none: order, errors, cancellation, closing.
final class SegmenterTests: XCTestCase {
    func testPredictBeforeSetImageAndAfterResetHasNoImage() async throws {
        let (segmenter, _) = try fake()
        await expect(.noImage) { _ = try await segmenter.predict(points: tap) }
        try await segmenter.setImage(photo)
        XCTAssertEqual(segmenter.photo, photo.size)
        _ = try await segmenter.predict(points: tap)
        try segmenter.reset()
        await expect(.noImage) { _ = try await segmenter.predict(points: tap) }
        XCTAssertNil(segmenter.photo)
    }

    func testOneTapGivesTheBestOfThreeAndARefinementRow0() async throws {
        let (segmenter, _) = try fake()
        try await segmenter.setImage(photo)
        let (mask, score) = try await segmenter.predict(points: tap)
        XCTAssertEqual(score, 0.9)
        XCTAssertEqual(mask.size, photo.size)
        XCTAssertEqual(Array(mask.logits[..<3]), [-1, -1, 1])
        XCTAssertEqual([mask.data[0], mask.data[39]], [0, 1])
        let (refined, scoreAfter) = try await segmenter.predict(points: tap, previousMask: mask)
        XCTAssertEqual(scoreAfter, 0.5)
        XCTAssertEqual(refined.data, [UInt8](repeating: 1, count: 800))
        XCTAssertGreaterThan(segmenter.timings.encodeMs + segmenter.timings.maskMs, 0)
    }

    func testAWrongPromptOrMaskLeavesTheSegmenterUsable() async throws {
        let (segmenter, log) = try fake()
        try await segmenter.setImage(photo)
        await expect(.noPrompt) { _ = try await segmenter.predict() }
        await expect(.pointOutside) { _ = try await segmenter.predict(points: [PromptPoint(x: .nan, y: 1)]) }
        await expect(.pointOutside) { _ = try await segmenter.predict(box: PromptBox(x0: 0, y0: 0, x1: .infinity, y1: 1)) }
        let other = Mask(size: photo.size, data: [UInt8](repeating: 0, count: 800), logits: [0, 0, 0, 0, 0])
        await expect(.maskSize) { _ = try await segmenter.predict(previousMask: other) }
        await expect(.tooManyPoints) {
            _ = try await segmenter.predict(points: [PromptPoint](repeating: PromptPoint(x: 1, y: 1), count: 8))
        }
        _ = try await segmenter.predict(points: tap)
        XCTAssertEqual(log.lettingGo, 0)
    }

    func testAnUnreadableOrOversizedPhotoLeavesTheEarlierOneSet() async throws {
        struct Unreadable: PixelSource {
            let size: PixelSize
            func readRow(_ y: Int, into row: UnsafeMutableBufferPointer<UInt8>) throws { throw Failure(errorDescription: "purged") }
        }
        let (segmenter, _) = try fake()
        try await segmenter.setImage(photo)
        for (width, height) in [(0, 5), (10_000, 10_000), (.max, 2), (9, 9)] {
            await expect(.image) { try await segmenter.setImage(Unreadable(size: PixelSize(width: width, height: height))) }
        }
        let (mask, _) = try await segmenter.predict(points: tap)
        XCTAssertEqual(mask.size, photo.size)
    }

    func testAnEngineThatFailsIsLetGoAndTheNextCallOpensAnother() async throws {
        let (segmenter, log) = try fake()
        try await segmenter.setImage(photo)
        for failures in 1...3 {
            log.failing = Failure(errorDescription: "GPU lost\nin line two")
            await expect(.engine) { _ = try await segmenter.predict(points: tap) }
            XCTAssertEqual(log.lettingGo, failures)
            log.failing = nil
            _ = try await segmenter.predict(points: tap)  // the embedding is still there
        }
        XCTAssertEqual(log.openings, 4)
    }

    func testAnEngineThatCannotOpenSaysSoAndMayOpenLater() async throws {
        let log = Log()
        let segmenter = try Segmenter(model: model()) {
            log.openings += 1
            if log.openings == 1 { throw Failure(errorDescription: "no memory") }
            return FakeEngine(log)
        }
        await expect(.engine) { try await segmenter.open() }
        try await segmenter.setImage(photo)
        XCTAssertEqual(segmenter.description, "none")
        XCTAssertEqual(log.openings, 2)
    }

    func testCallsOfOneActorRunOneAfterTheOtherInTheirOrder() async throws {
        for _ in 1...40 {  // a call that left its actor would still come in order most of the time
            let (segmenter, log) = try fake()
            try await segmenter.setImage(photo)
            let order = Order()
            for tap in await tapThirtyTimes(segmenter, order) {
                let score = try await tap.value
                XCTAssertEqual(score, 0.9)
            }
            let taps = await order.taps
            XCTAssertEqual(taps.sorted(), (1...30).map { Float($0) })
            XCTAssertEqual(log.calls, ["encode"] + taps.map { "decode \(Float(Double($0) * 0.8))" })
        }
    }

    func testACancelledSetImageReturnsAtOnceAndLeavesTheEarlierPhoto() async throws {
        let (segmenter, log) = try fake()
        try await segmenter.setImage(photo)
        let (begun, goOn) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        log.encoding = {
            begun.signal()
            goOn.wait()
        }
        let other = MadeUpPhoto(PixelSize(width: 10, height: 10))
        let task = Task { try await segmenter.setImage(other) }
        await wait(for: begun)
        task.cancel()  // while the engine is still at it
        await expect(.cancelled) { try await task.value }
        goOn.signal()
        let (mask, _) = try await segmenter.predict(points: tap)
        XCTAssertEqual(mask.size, photo.size)
        XCTAssertEqual(segmenter.photo, photo.size)
        let late = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            try await segmenter.setImage(other)
        }
        await expect(.cancelled) { try await late.value }
        XCTAssertEqual(segmenter.photo, photo.size)
    }

    func testClosingDuringACallEndsTheWaitingOnesAndLetsTheEngineGo() async throws {
        let (segmenter, log) = try fake()
        let (begun, goOn) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        log.encoding = {
            begun.signal()
            goOn.wait()
        }
        let first = Task { try await segmenter.setImage(photo) }
        await wait(for: begun)
        let waiting = Task { _ = try await segmenter.predict(points: tap) }
        segmenter.close()
        segmenter.close()
        XCTAssertEqual(log.lettingGo, 0)
        goOn.signal()
        try await first.value
        await expect(.closed) { try await waiting.value }
        await expect(.closed) { _ = try await segmenter.predict(points: tap) }
        await expect(.closed) { try await segmenter.setImage(photo) }
        await expect(.closed) { try segmenter.reset() }
        for _ in 1...100 where log.lettingGo == 0 { try await Task.sleep(for: .milliseconds(20)) }
        XCTAssertEqual(log.lettingGo, 1)
        XCTAssertNil(segmenter.photo)
    }

    func testASegmenterThatIsForgottenLetsItsEngineGo() async throws {
        let log = Log()
        try await {
            let (segmenter, _) = try fake(log)
            try await segmenter.setImage(photo)
        }()
        for _ in 1...100 where log.lettingGo == 0 { try await Task.sleep(for: .milliseconds(20)) }
        XCTAssertEqual(log.lettingGo, 1)
    }

    func testACutOutHasThePhotosColoursAndTheMaskAsAlpha() throws {
        let size = PixelSize(width: 2, height: 2)
        let stored: [UInt8] = [1, 2, 3, 9, 4, 5, 6, 9, 7, 8, 9, 9, 10, 11, 12, 9]
        let mask = Mask(size: size, data: [1, 0, 0, 1], logits: [])
        let cut = try cutout(Photo(storedSize: size, stored: stored, orientation: .flipped), mask)
        XCTAssertEqual(cut, [4, 5, 6, 255, 1, 2, 3, 0, 10, 11, 12, 0, 7, 8, 9, 255])
        let narrow = Mask(size: PixelSize(width: 1, height: 2), data: [0, 0], logits: [])
        XCTAssertThrowsError(try cutout(Photo(storedSize: size, stored: stored), narrow)) {
            XCTAssertEqual(($0 as? SegmenterError)?.code, .image)
        }
    }

    private func model() throws -> ModelInfo {
        try ModelInfo(imageSize: FakeEngine.side, maxPoints: 8, precision: "float32", weightsSha256: "0", notice: nil)
    }

    private func fake(_ log: Log = Log()) throws -> (Segmenter, Log) {
        let segmenter = try Segmenter(model: model()) {
            log.openings += 1
            return FakeEngine(log)
        }
        return (segmenter, log)
    }

    private func wait(for semaphore: DispatchSemaphore) async {
        await withCheckedContinuation { waiting in
            DispatchQueue.global().async {
                semaphore.wait()
                waiting.resume()
            }
        }
    }
}

/// In which order taps were begun: tasks of one actor need not begin in the order that they were made in.
@MainActor
private final class Order {
    var taps: [Float] = []

    nonisolated init() {}
}

@MainActor
private func tapThirtyTimes(_ segmenter: Segmenter, _ order: Order) -> [Task<Float, any Error>] {
    (1...30).map { x in
        Task {
            order.taps.append(Float(x))
            return try await segmenter.predict(points: [PromptPoint(x: Float(x), y: 1)]).score
        }
    }
}

func expect(
    _ code: ErrorCode, file: StaticString = #filePath, line: UInt = #line, isolation: isolated (any Actor)? = #isolation,
    _ call: () async throws -> Void
) async {
    do {
        try await call()
        XCTFail("nothing was thrown", file: file, line: line)
    } catch let error as SegmenterError {
        XCTAssertEqual(error.code, code, file: file, line: line)
        XCTAssertFalse(error.message.isEmpty || error.message.contains("\n"), error.message, file: file, line: line)
        XCTAssertEqual(error.localizedDescription, error.message, file: file, line: line)
    } catch {
        XCTFail("\(error)", file: file, line: line)
    }
}

struct Failure: LocalizedError {
    let errorDescription: String?
}

/// What happened to the engines of one segmenter, and what is to happen.
final class Log: @unchecked Sendable {
    private let lock = NSLock()
    private var state = (openings: 0, lettingGo: 0, calls: [String](), failing: Failure?.none, encoding: {})

    var openings: Int { get { lock.withLock { state.openings } } set { lock.withLock { state.openings = newValue } } }
    var lettingGo: Int { get { lock.withLock { state.lettingGo } } set { lock.withLock { state.lettingGo = newValue } } }
    var calls: [String] { get { lock.withLock { state.calls } } set { lock.withLock { state.calls = newValue } } }
    var failing: Failure? { get { lock.withLock { state.failing } } set { lock.withLock { state.failing = newValue } } }
    var encoding: () -> Void { get { lock.withLock { state.encoding } } set { lock.withLock { state.encoding = newValue } } }
}

final class FakeEngine: Engine {
    static let side = 32
    let description = "none"
    private let log: Log

    init(_ log: Log) { self.log = log }

    deinit { log.lettingGo += 1 }

    func encode(_ photo: RGBImage) throws -> Embedding {
        log.encoding()
        if let failing = log.failing { throw failing }
        log.calls.append("encode")
        return Embedding([Float(photo.size.width)])
    }

    /// Row r is 1 everywhere from column r on, else -1.
    func decode(_ embedding: Embedding, _ slots: Slots, mask: [Float]?) throws -> Decoded {
        if let failing = log.failing { throw failing }
        log.calls.append("decode \(slots.coords[0])")
        let low = Self.side / 4
        let logits = (0..<4 * low * low).map { at -> Float in at % low >= at / (low * low) ? 1 : -1 }
        return Decoded(logits: logits, iouPredictions: [0.5, 0.2, 0.9, 0.9])
    }
}
