import Foundation
import MobileSam
import XCTest

/// All sections of the conformance vectors; the format is in apps/conformance/README.md.
struct ConformanceFile: Decodable {
    struct Stored: Decodable {
        let file: String
        let dtype: String
        let shape: [Int]
    }
    struct Resize: Decodable {
        let name: String
        let photo_size: [Int]
        let image_size: Int
        let resized_size: [Int]
        let rows: [Int]?
        let pixels: Stored
    }
    struct Turn: Decodable {
        let name: String
        let orientation: Int
        let stored_size: [Int]
        let upright_size: [Int]
        let pixels: Stored
        let jpeg: String
        let jpeg_pixels: Stored
    }
    struct Frame: Decodable {
        let name: String
        let photo_size: [Int]
        let image_size: Int
        let layout: String
        let pixels: Stored
    }
    struct Prompt: Decodable {
        let name: String
        let photo_size: [Int]
        let image_size: Int?  // of an error there is none
        let max_points: Int?
        let points: [[Float]]
        let box: [Float]?
        let previous_mask: Bool
        let point_coords: [[Float]]?
        let point_labels: [Float]?
        let has_mask_input: Int?
        let multimask: Bool?
        let error: String?

        var promptPoints: [PromptPoint] { points.map { PromptPoint(x: $0[0], y: $0[1], label: Int($0[2])) } }
        var promptBox: PromptBox? { box.map { PromptBox(x0: $0[0], y0: $0[1], x1: $0[2], y1: $0[3]) } }
    }
    struct Choice: Decodable {
        let name: String
        let multimask: Bool
        let iou_predictions: [Float]
        let row: Int
    }
    struct MaskCase: Decodable {
        let name: String
        let photo_size: [Int]
        let image_size: Int
        let logits: Stored?
        let rows: [Int]?
        let mask: Stored
    }
    struct Region: Decodable {
        let name: String
        let mask: Stored
        let operation: String
        let area: Int
        let result: Stored
    }
    struct Rings: Decodable {
        let name: String
        let mask: Stored
        let rings: [[[Int]]]
    }

    let format: String
    let format_version: String
    let contract_version: String
    let resize: [Resize]
    let orientation: [Turn]
    let frames: [Frame]
    let prompts: [Prompt]
    let prompt_errors: [Prompt]
    let choices: [Choice]
    let masks: [MaskCase]
    let regions: [Region]
    let polygons: [Rings]

    /// MOBILESAM_VECTORS, or the folder beside the package.
    static let folder = ProcessInfo.processInfo.environment["MOBILESAM_VECTORS"].map { URL(fileURLWithPath: $0) }
        ?? URL(fileURLWithPath: #filePath).appendingPathComponent("../../../../conformance/vectors").standardized

    static func read() throws -> ConformanceFile {
        let file = try JSONDecoder().decode(self, from: Data(contentsOf: folder.appendingPathComponent("vectors.json")))
        XCTAssertEqual([file.format, file.format_version, file.contract_version], ["mobilesam-vectors", "1", contractVersion])
        return file
    }

    static func bytes(_ array: Stored) throws -> [UInt8] {
        XCTAssertEqual(array.dtype, "uint8")
        return try [UInt8](Data(contentsOf: folder.appendingPathComponent(array.file)))
    }

    static func floats(_ array: Stored) throws -> [Float] {
        XCTAssertEqual(array.dtype, "float32")
        let stored = try [UInt8](Data(contentsOf: folder.appendingPathComponent(array.file)))
        return stride(from: 0, to: stored.count, by: 4).map { at in
            Float(bitPattern: (0..<4).reduce(0) { $0 | UInt32(stored[at + $1]) << (8 * UInt32($1)) })
        }
    }

    static func mask(_ array: Stored) throws -> Mask {
        try Mask(size: size(array.shape), data: bytes(array), logits: [])
    }
}

/// Stored as height, width.
func size(_ heightWidth: [Int]) -> PixelSize {
    PixelSize(width: heightWidth[1], height: heightWidth[0])
}

/// The format's made-up photo.
struct MadeUpPhoto: PixelSource {
    let size: PixelSize

    init(_ size: PixelSize) { self.size = size }

    func readRow(_ y: Int, into row: UnsafeMutableBufferPointer<UInt8>) {
        for x in 0..<size.width {
            let base: Int = 3 * x * x + 5 * y * y + 7 * x * y + 31 * ((x >> 4) ^ (y >> 4))
            for channel in 0..<3 { row[4 * x + channel] = UInt8((base + 85 * channel) % 256) }
            row[4 * x + 3] = 255
        }
    }

    /// Red, green, blue, alpha.
    func rgba() -> [UInt8] {
        var pixels = [UInt8](repeating: 0, count: 4 * size.width * size.height)
        pixels.withUnsafeMutableBufferPointer { pixels in
            for y in 0..<size.height {
                readRow(y, into: UnsafeMutableBufferPointer(rebasing: pixels[4 * y * size.width..<4 * (y + 1) * size.width]))
            }
        }
        return pixels
    }
}

func madeUpLogits(imageSize: Int) -> [Float] {
    let low = imageSize / 4
    func tri(_ t: Int, _ p: Int) -> Double { Double(abs((t % (2 * p) + 2 * p) % (2 * p) - p)) }
    return (0..<low * low).map { at in
        let (x, y) = (at % low, at / low)
        let sum: Double = tri(3 * x + y, 40) + tri(5 * y - 2 * x + 1000, 56)
        return Float((sum - 48.3046875) / 32)
    }
}
