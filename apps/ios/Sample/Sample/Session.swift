import CoreGraphics
import CoreML
import Foundation
import MobileSam
import MobileSamCoreML
import SwiftUI

/// One photo and what was asked about it.
@MainActor
final class Session: ObservableObject {
    @Published private(set) var status = "Loading the models"
    @Published private(set) var segmenter: Segmenter?
    @Published private(set) var shown: CGImage?
    @Published private(set) var outline: CGPath?
    @Published private(set) var points: [PromptPoint] = []
    @Published private(set) var box: PromptBox?
    @Published private(set) var cutoutFile: URL?
    @Published private(set) var mask: Mask?
    private var photo: ColourPhoto?
    private var work: Task<Void, Never>?

    /// Load the models, in place of those that are loaded.
    func open(_ computeUnits: MLComputeUnits) {
        segmenter?.close()
        segmenter = nil
        forgetPhoto()
        status = "Loading the models"
        begin {
            let opened = try await Segmenter.load(computeUnits: computeUnits) { configuration in
                let encoder = try mobile_sam_encoder(configuration: configuration)
                let decoder = try mobile_sam_decoder(configuration: configuration)
                return (encoder.model, decoder.model)
            }
            try Task.checkCancellation()
            self.segmenter = opened
            self.status = "Choose a photo"
        }
    }

    func choose(_ loadFile: @escaping @MainActor () async throws -> Data?) {
        guard let segmenter else { return }
        forgetPhoto()  // taps on it would be about another photo than the segmenter's
        status = "Looking at the photo"
        begin {
            guard let file = try await loadFile() else { return }
            let chosen = try await decode(file)
            try await segmenter.setImage(chosen)
            let upright = try await makeUpright(chosen)
            try Task.checkCancellation()
            self.shown = upright.value
            self.photo = chosen
            self.status = "Tap an object, or drag a box around it"
        }
    }

    func tap(x: Float, y: Float, label: Int) {
        ask(points + [PromptPoint(x: x, y: y, label: label)], box)
    }

    func drag(_ box: PromptBox) {
        ask([], box)
    }

    func undo() {
        if points.isEmpty { ask([], nil) } else { ask(points.dropLast(), box) }
    }

    /// Make the file that can be shared.
    func cutOut() {
        guard let photo, let mask else { return }
        begin {
            let file = try await writeCutout(photo, mask)
            try Task.checkCancellation()
            self.cutoutFile = file
        }
    }

    /// Do one thing; a newer one takes the place of an older one.
    func begin(_ task: @escaping @MainActor () async throws -> Void) {
        stop()
        work = Task {
            do {
                try await task()
            } catch let error as SegmenterError where error.code == .cancelled {
                // A newer one has taken its place.
            } catch is CancellationError {
            } catch {
                status = error.localizedDescription  // of a SegmenterError: one sentence for people
            }
        }
    }

    func stop() {
        work?.cancel()
    }

    func forgetPhoto() {
        (photo, shown, points, box) = (nil, nil, [], nil)
        forgetMask()
    }

    private func forgetMask() {
        (mask, outline, cutoutFile) = (nil, nil, nil)
    }

    private func ask(_ points: [PromptPoint], _ box: PromptBox?) {
        guard let segmenter, photo != nil else { return }
        (self.points, self.box) = (points, box)
        if points.isEmpty && box == nil {
            stop()
            forgetMask()
            return
        }
        begin {
            let (mask, score) = try await segmenter.predict(points: points, box: box)
            let outline = await makeOutline(of: mask)
            try Task.checkCancellation()
            self.forgetMask()
            (self.mask, self.outline) = (mask, outline.value)
            self.status = "Predicted IoU \(score.formatted(.number.precision(.fractionLength(2))))"
        }
    }
}

// Off the main thread:

private func decode(_ file: Data) async throws -> ColourPhoto {
    try ColourPhoto(file)
}

private func makeUpright(_ photo: ColourPhoto) async throws -> Made<CGImage> {
    try Made(value: photo.image())
}

private func makeOutline(of mask: Mask) async -> Made<CGPath> {
    Made(value: mask.path())
}

private func writeCutout(_ photo: ColourPhoto, _ mask: Mask) async throws -> URL {
    let file = FileManager.default.temporaryDirectory.appendingPathComponent("cutout.png")
    try pngData(cutout(photo, mask)).write(to: file, options: .atomic)
    return file
}

/// An image or a path, which nobody changes once it is made.
private struct Made<Value>: @unchecked Sendable {
    let value: Value
}
