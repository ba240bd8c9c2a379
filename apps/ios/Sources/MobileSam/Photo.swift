/// A photo that is read one row at a time, so that a large one is never held twice. Upright.
public protocol PixelSource: Sendable {
    var size: PixelSize { get }

    /// Row `y`: red, green, blue and alpha of each pixel, `4 * size.width` bytes. Alpha is not looked at.
    func readRow(_ y: Int, into row: UnsafeMutableBufferPointer<UInt8>) throws
}

/// RGB, 8 bits a channel, row by row.
public struct RGBImage: PixelSource, Equatable {
    public let size: PixelSize
    public let data: [UInt8]

    public init(size: PixelSize, data: [UInt8]) {
        precondition(data.count == 3 * size.width * size.height, "\(data.count) bytes for \(size) pixels")
        self.size = size
        self.data = data
    }

    public func readRow(_ y: Int, into row: UnsafeMutableBufferPointer<UInt8>) {
        let offset = 3 * y * size.width
        for x in 0..<size.width {
            for channel in 0..<3 { row[4 * x + channel] = data[offset + 3 * x + channel] }
            row[4 * x + 3] = 255
        }
    }
}

/// Decoded pixels as the file has them, read upright: a photo from a camera is turned without a second copy of it.
public struct Photo: PixelSource {
    public let storedSize: PixelSize
    /// Red, green, blue, alpha, row by row.
    public let stored: [UInt8]
    public let orientation: Orientation

    public init(storedSize: PixelSize, stored: [UInt8], orientation: Orientation = .upright) {
        precondition(stored.count == 4 * storedSize.width * storedSize.height, "\(stored.count) bytes for \(storedSize) pixels")
        self.storedSize = storedSize
        self.stored = stored
        self.orientation = orientation
    }

    public var size: PixelSize { orientation.uprightSize(storedSize) }

    public func readRow(_ y: Int, into row: UnsafeMutableBufferPointer<UInt8>) {
        var (pixel, step) = orientation.uprightRow(y, of: storedSize)
        stored.withUnsafeBufferPointer { stored in
            for x in 0..<size.width {
                for channel in 0..<4 { row[4 * x + channel] = stored[4 * pixel + channel] }
                pixel += step
            }
        }
    }
}

/// Refuse photos without pixels, and those whose pixels would fill the memory.
public func checkPhotoSize(_ size: PixelSize) throws {
    let (pixels, overflow) = size.width.multipliedReportingOverflow(by: size.height)
    if size.width < 1 || size.height < 1 || overflow || pixels > largestPhotoPixels {
        throw SegmenterError(
            .image,
            "got a photo of \(size) pixels, expected 1 to \(largestPhotoPixels / 1_000_000) million; give a smaller one"
        )
    }
}
