import Dispatch
import Foundation

/// Milliseconds of the last calls.
public struct Timings: Equatable, Sendable {
    public var resizeMs = 0.0
    public var encodeMs = 0.0
    public var decodeMs = 0.0
    public var maskMs = 0.0
}

/// One photo, many prompts, one mask for each: `setImage`, `predict`, `reset`.
///
/// Calls queue and run one at a time on a queue of the segmenter's own, in the order in which they were made. A cancelled
/// call throws `cancelled` at once; what the engine has begun it finishes, and nobody sees it. After an engine's failure the
/// next call opens another engine.
public final class Segmenter: @unchecked Sendable {
    public let model: ModelInfo

    private struct CurrentPhoto {
        let size: PixelSize
        let embedding: Embedding
    }

    private struct Shown {
        var isClosed = false
        var description = ""
        var timings = Timings()
        var photo: PixelSize?
    }

    private let openEngine: @Sendable () throws -> any Engine
    private let queue = DispatchQueue(label: "mobilesam", qos: .userInitiated, autoreleaseFrequency: .workItem)
    private let lock = NSLock()
    private var shown = Shown()  // guarded by the lock

    // Of the queue:
    private var engine: (any Engine)?
    private var current: CurrentPhoto?

    /// `openEngine` runs on the segmenter's queue, before the first photo and after an engine has failed.
    public init(model: ModelInfo, openEngine: @escaping @Sendable () throws -> any Engine) {
        self.model = model
        self.openEngine = openEngine
    }

    /// What runs where, for people; empty before the first call.
    public var description: String { lock.withLock { shown.description } }

    public var timings: Timings { lock.withLock { shown.timings } }

    /// Size of the photo that is set, or nil.
    public var photo: PixelSize? { lock.withLock { shown.photo } }

    /// Open the models now instead of in the first `setImage`.
    public func open(isolation: isolated (any Actor)? = #isolation) async throws {
        try await call { _ in _ = try self.openedEngine() }
    }

    /// Embed an upright photo; later predictions are about it. If this fails, the earlier photo stays set.
    public func setImage(_ photo: some PixelSource, isolation: isolated (any Actor)? = #isolation) async throws {
        try await call { ticket in
            let size = photo.size
            try checkPhotoSize(size)
            let begun = DispatchTime.now()
            let resized = try explaining(.image, "the photo's pixels cannot be read") {
                try resizeLongestSide(photo, imageSize: self.model.imageSize, checkActive: ticket.checkActive)
            }
            let ready = DispatchTime.now()
            let embedding = try self.inEngine { try $0.encode(resized) }
            try ticket.claim()  // from here on it is too late to cancel
            self.current = CurrentPhoto(size: size, embedding: embedding)
            self.lock.withLock {
                self.shown.photo = size
                self.shown.timings.resizeMs = milliseconds(from: begun, to: ready)
                self.shown.timings.encodeMs = milliseconds(from: ready, to: .now())
            }
        }
    }

    /// The mask that a prompt means and the model's own estimate of its IoU; see apps/README.md.
    public func predict(
        points: [PromptPoint] = [], box: PromptBox? = nil, previousMask: Mask? = nil,
        isolation: isolated (any Actor)? = #isolation
    ) async throws -> (mask: Mask, score: Float) {
        try await call { ticket in
            guard let photo = self.current else {
                throw SegmenterError(.noImage, "no photo is set; call setImage(photo) first")
            }
            let imageSize = self.model.imageSize
            let maxPoints = self.model.maxPoints
            let logits = previousMask?.logits
            try checkPrompt(points, box: box, hasMask: logits != nil, photo: photo.size, maxPoints: maxPoints)
            let low = imageSize / 4
            if let logits, logits.count != low * low {
                throw SegmenterError(
                    .maskSize,
                    "got a previous mask with \(logits.count) logits, expected \(low) x \(low); pass one from this model"
                )
            }
            let begun = DispatchTime.now()
            let slots = promptSlots(points, box: box, photo: photo.size, imageSize: imageSize, maxPoints: maxPoints)
            let decoded = try self.inEngine { try $0.decode(photo.embedding, slots, mask: logits) }
            try ticket.checkActive()
            let ready = DispatchTime.now()
            let isMultimask = isAmbiguous(points, box: box, hasMask: logits != nil)
            let row = bestRow(multimask: isMultimask, iouPredictions: decoded.iouPredictions)
            let chosen = Array(decoded.logits[row * low * low..<(row + 1) * low * low])
            let mask = logitsToMask(chosen, imageSize: imageSize, photo: photo.size)
            self.lock.withLock {
                self.shown.timings.decodeMs = milliseconds(from: begun, to: ready)
                self.shown.timings.maskMs = milliseconds(from: ready, to: .now())
            }
            return (mask, decoded.iouPredictions[row])
        }
    }

    /// Forget the photo.
    public func reset() throws {
        try submit { self.forget() }
    }

    /// Let both models go, when the call that runs is done. Calls that wait, and all later ones, are `closed`.
    public func close() {
        lock.withLock { shown.isClosed = true }
        queue.async {
            self.forget()
            self.engine = nil
        }
    }

    private func forget() {
        current = nil
        lock.withLock { shown.photo = nil }
    }

    private func openedEngine() throws -> any Engine {
        if let engine { return engine }
        let opened = try explaining(.engine, "the models cannot be loaded; export them again") { try openEngine() }
        engine = opened
        lock.withLock { shown.description = opened.description }
        return opened
    }

    /// Run a model. A runtime that failed once may be in any state: it is let go.
    private func inEngine<T>(_ run: (any Engine) throws -> T) throws -> T {
        let engine = try openedEngine()
        do {
            return try explaining(.engine, "the engine failed; try again, with the CPU if it was another unit") { try run(engine) }
        } catch {
            self.engine = nil
            throw error
        }
    }

    private func checkOpen() throws {
        if lock.withLock({ shown.isClosed }) { throw SegmenterError(.closed, "the segmenter is closed; make another") }
    }

    private func submit(_ task: @escaping @Sendable () -> Void) throws {
        try checkOpen()
        queue.async(execute: task)
    }

    /// Run a call on the queue when those before it are done. In the caller's isolation: calls of one actor keep their order.
    private func call<Value: Sendable>(
        isolation: isolated (any Actor)? = #isolation,
        _ body: @escaping @Sendable (_ ticket: Ticket<Value>) throws -> Value
    ) async throws -> Value {
        let ticket = Ticket<Value>()
        return try await withTaskCancellationHandler {
            _ = isolation  // a closure runs in the caller's isolation only if it captures it
            return try await withCheckedThrowingContinuation { continuation in
                ticket.wait(continuation)
                do {
                    try self.submit {
                        if ticket.isCancelled { return }
                        ticket.finish(Result { () throws -> Value in
                            try self.checkOpen()
                            return try body(ticket)
                        })
                    }
                } catch {
                    ticket.finish(.failure(error))
                }
            }
        } onCancel: {
            ticket.cancel()
        }
    }
}

/// One waiting caller, who is answered once: by the call or by its cancellation, whichever comes first.
private final class Ticket<Value: Sendable>: @unchecked Sendable {
    private let lock = NSLock()
    private var continuation: CheckedContinuation<Value, any Error>?
    private var isClaimed = false
    private var wasCancelled = false

    var isCancelled: Bool { lock.withLock { wasCancelled } }

    func wait(_ caller: CheckedContinuation<Value, any Error>) {
        lock.withLock { continuation = caller }
        if isCancelled { finish(.failure(cancelled)) }
    }

    func finish(_ result: Result<Value, any Error>) {
        let caller = lock.withLock {
            defer { continuation = nil }
            return continuation
        }
        caller?.resume(with: result)
    }

    func cancel() {
        let isTooLate = lock.withLock {
            if !isClaimed { wasCancelled = true }
            return isClaimed
        }
        if !isTooLate { finish(.failure(cancelled)) }
    }

    func checkActive() throws {
        if isCancelled { throw cancelled }
    }

    /// After this the call cannot be cancelled.
    func claim() throws {
        let isCancelled = lock.withLock {
            isClaimed = true
            return wasCancelled
        }
        if isCancelled { throw cancelled }
    }

    private var cancelled: SegmenterError { SegmenterError(.cancelled, "cancelled by the caller") }
}

private func milliseconds(from: DispatchTime, to: DispatchTime) -> Double {
    Double(to.uptimeNanoseconds - from.uptimeNanoseconds) / 1e6
}
