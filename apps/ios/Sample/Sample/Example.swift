import CoreGraphics
import Foundation
import MobileSam
import MobileSamCoreML

func cutOut(file: Data, x: Float, y: Float) async throws -> CGImage {
    let segmenter = try await Segmenter.load { configuration in  // classes that Xcode makes of the two packages
        let encoder = try mobile_sam_encoder(configuration: configuration)
        let decoder = try mobile_sam_decoder(configuration: configuration)
        return (encoder.model, decoder.model)
    }
    defer { segmenter.close() }
    let photo = try ColourPhoto(file)  // upright
    try await segmenter.setImage(photo)  // once a photo
    let (mask, _) = try await segmenter.predict(points: [PromptPoint(x: x, y: y)])  // once a tap, in the photo's pixels
    let more = [PromptPoint(x: x, y: y), PromptPoint(x: 5, y: 5, label: 0)]
    let (better, score) = try await segmenter.predict(points: more, previousMask: mask)  // refine it
    print("predicted IoU \(score)")
    return try cutout(photo, fillHoles(better, area: 200))
}  // a SegmenterError has one sentence for people in its message and a code for programs
