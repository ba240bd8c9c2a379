import Foundation

/// Conformance vectors of a bundle, as `mobilesam-export vectors DIR --bundle DIST` writes them; the format is in
/// apps/conformance/README.md.
public struct Vectors: Sendable {
    /// Values in a file of their own, `[height, width]` first.
    public struct Stored: Decodable, Sendable {
        public let file: String
        public let dtype: String
        public let shape: [Int]
    }

    public struct Case: Decodable, Sendable {
        public let name: String
        let points: [[Float]]
        let box: [Float]?
        public let previous_mask: Stored?
        public let mask: Stored
        public let score: Float

        public var promptPoints: [PromptPoint] {
            points.map { PromptPoint(x: $0[0], y: $0[1], label: Int($0[2])) }
        }
        public var promptBox: PromptBox? {
            box.map { PromptBox(x0: $0[0], y0: $0[1], x1: $0[2], y1: $0[3]) }
        }
    }

    public struct Photo: Decodable, Sendable {
        public let name: String
        public let pixels: Stored
        public let cases: [Case]
    }

    public struct Target: Decodable, Sendable {
        public let precision: String
        public let least_iou: Double?
    }

    struct BundleSection: Decodable, Sendable {
        let weights_sha256: String
        let image_size: Int
        let targets: [String: Target]
        let photos: [Photo]
    }

    private struct Root: Decodable {
        let format: String
        let format_version: String
        let contract_version: String
        let bundle: BundleSection?
    }

    public let folder: URL
    let bundle: BundleSection
    public var photos: [Photo] { bundle.photos }
    public var targets: [String: Target] { bundle.targets }

    /// Read `vectors.json` in `folder`; throws a SegmenterError if it is not about a bundle.
    public init(folder: URL) throws {
        let json = try readBytes(folder.appendingPathComponent("vectors.json"), most: 64 << 20)
        let root: Root
        do {
            root = try JSONDecoder().decode(Root.self, from: json)
        } catch let error as DecodingError {
            throw unusable(error.place)
        }
        guard root.format == "mobilesam-vectors", root.format_version == "1" else {
            throw unusable("format \(root.format) \(root.format_version)")
        }
        try checkContractVersion(root.contract_version)
        guard let bundle = root.bundle else { throw unusable("no bundle") }
        for photo in bundle.photos {
            for asked in photo.cases {
                guard asked.points.allSatisfy({ $0.count == 3 }), (asked.box ?? [0, 0, 0, 0]).count == 4 else {
                    throw unusable("\(photo.name), \(asked.name)")
                }
            }
        }
        self.folder = folder
        self.bundle = bundle
    }

    public func bytes(_ array: Stored) throws -> [UInt8] {
        guard array.dtype == "uint8" else { throw unusable("\(array.file): \(array.dtype)") }
        return try [UInt8](content(array, bytesEach: 1))
    }

    public func floats(_ array: Stored) throws -> [Float] {
        guard array.dtype == "float32" else { throw unusable("\(array.file): \(array.dtype)") }
        let content = try content(array, bytesEach: 4)
        return content.withUnsafeBytes { bytes in
            (0..<content.count / 4).map { i in
                Float(bitPattern: UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * i, as: UInt32.self)))
            }
        }
    }

    /// A photo's stored pixels.
    public func pixels(_ photo: Photo) throws -> RGBImage {
        let shape = photo.pixels.shape
        guard shape.count == 3, shape[2] == 3 else { throw unusable("\(photo.name) of \(shape)") }
        return try RGBImage(size: PixelSize(width: shape[1], height: shape[0]), data: bytes(photo.pixels))
    }

    /// A case's earlier mask, of which only the logits count.
    public func previousMask(_ asked: Case) throws -> Mask? {
        try asked.previous_mask.map { try Mask(size: PixelSize(width: 0, height: 0), data: [], logits: floats($0)) }
    }

    private func content(_ array: Stored, bytesEach: Int) throws -> Data {
        var count = bytesEach
        for side in array.shape {
            let (product, overflow) = count.multipliedReportingOverflow(by: side)
            guard side > 0, !overflow, product <= 4 * largestPhotoPixels else { throw unusable("\(array.file) of \(array.shape)") }
            count = product
        }
        guard !array.file.hasPrefix("/"), !array.file.split(separator: "/").contains("..") else { throw unusable(array.file) }
        let content = try readBytes(folder.appendingPathComponent(array.file), most: count)
        guard content.count == count else { throw unusable("\(array.file) has \(content.count) bytes instead of \(count)") }
        return content
    }
}

private func unusable(_ what: String) -> SegmenterError {
    SegmenterError(
        .modelFile,
        "these are no vectors of a bundle (\(what.prefix(80))); write them with: mobilesam-export vectors OUT --bundle DIST"
    )
}
