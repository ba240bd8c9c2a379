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
    private var photo: ColourPhoto?
    private var work: Task<Void, Never>?

    /// Load the models, in place of those that are loaded.
    func open(_ computeUnits: MLComputeUnits) async {
        segmenter?.close()
        segmenter = nil
        forgetPhoto()
        status = "Loading the models"
        await explain {
            let opened = try await Segmenter.load(computeUnits: computeUnits) { configuration in
                let encoder = try mobile_sam_encoder(configuration: configuration)
                let decoder = try mobile_sam_decoder(configuration: configuration)
                return (encoder.model, decoder.model)
            }
            self.segmenter = opened
            self.status = "Choose a photo"
        }
    }

    func choose(_ loadFile: @escaping @MainActor () async throws -> Data?) {
        begin {
            guard let segmenter = self.segmenter else { return }
            self.status = "Looking at the photo"
            guard let file = try await loadFile() else { return }
            let chosen = try await decode(file)
            try await segmenter.setImage(chosen)
            self.forgetPhoto()
            self.shown = try chosen.image()
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

    private func ask(_ points: [PromptPoint], _ box: PromptBox?) {
        guard let segmenter, let photo else { return }
        self.points = points
        self.box = box
        if points.isEmpty && box == nil {
            work?.cancel()
            outline = nil
            cutoutFile = nil
            return
        }
        begin {
            let (mask, score) = try await segmenter.predict(points: points, box: box)
            self.outline = mask.path()
            self.status = "Predicted IoU \(score.formatted(.number.precision(.fractionLength(2))))"
            self.cutoutFile = try await writeCutout(photo, mask)
        }
    }

    private func forgetPhoto() {
        work?.cancel()
        (photo, shown, outline, cutoutFile, points, box) = (nil, nil, nil, nil, [], nil)
    }

    /// Do one thing; a newer one takes the place of an older one.
    private func begin(_ task: @escaping @MainActor () async throws -> Void) {
        work?.cancel()
        work = Task { await explain(task) }
    }

    private func explain(_ task: @MainActor () async throws -> Void) async {
        do {
            try await task()
        } catch let error as SegmenterError where error.code == .cancelled {
            // A newer prompt or photo has taken its place.
        } catch {
            status = error.localizedDescription  // of a SegmenterError: one sentence for people
        }
    }
}

/// Off the main thread.
private func decode(_ file: Data) async throws -> ColourPhoto {
    try ColourPhoto(file)
}

/// Off the main thread; each in the place of the one before.
private func writeCutout(_ photo: ColourPhoto, _ mask: Mask) async throws -> URL {
    let file = FileManager.default.temporaryDirectory.appendingPathComponent("cutout.png")
    try pngData(cutout(photo, mask)).write(to: file, options: .atomic)
    return file
}
