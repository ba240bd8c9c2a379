#if canImport(CoreGraphics) && canImport(ImageIO)
    import CoreGraphics
    import Foundation
    import ImageIO
    import MobileSam

    /// A photo with its colour space: what a `Segmenter` takes, and what a cut-out is made of.
    ///
    /// Pixels keep the numbers that the file has, as in the reference: a photo in Display P3 is not converted.
    public struct ColourPhoto: PixelSource, @unchecked Sendable {  // a CGColorSpace does not change
        public let pixels: Photo
        public let colourSpace: CGColorSpace

        public var size: PixelSize { pixels.size }

        public func readRow(_ y: Int, into row: UnsafeMutableBufferPointer<UInt8>) { pixels.readRow(y, into: row) }

        /// The content of a JPEG, HEIC or PNG file. Its size is looked at before its pixels are decoded.
        public init(_ file: Data) throws {
            let undecodable = SegmenterError(.image, "this device cannot decode the photo; give a JPEG, HEIC or PNG file")
            guard let source = CGImageSourceCreateWithData(file as CFData, nil),
                let properties = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any],
                let width = properties[kCGImagePropertyPixelWidth] as? Int,
                let height = properties[kCGImagePropertyPixelHeight] as? Int
            else { throw undecodable }
            try checkPhotoSize(PixelSize(width: width, height: height))
            guard let image = CGImageSourceCreateImageAtIndex(source, 0, nil) else { throw undecodable }
            let orientation = Orientation(exif: properties[kCGImagePropertyOrientation] as? Int ?? 1)
            try self.init(image, orientation: orientation)
        }

        /// An image as it is stored, and how it is turned upright: a `CGImage` knows no orientation.
        public init(_ image: CGImage, orientation: Orientation = .upright) throws {
            let size = PixelSize(width: image.width, height: image.height)
            try checkPhotoSize(size)
            guard let sRGB = CGColorSpace(name: CGColorSpace.sRGB) else {
                throw SegmenterError(.engine, "this system has no sRGB; restart it")
            }
            let own = image.colorSpace.flatMap { $0.model == .rgb && $0.supportsOutput ? $0 : nil }
            colourSpace = own ?? sRGB
            var stored = [UInt8](repeating: 0, count: 4 * size.width * size.height)
            let isDrawn = stored.withUnsafeMutableBytes { bytes in
                let context = CGContext(
                    data: bytes.baseAddress, width: size.width, height: size.height, bitsPerComponent: 8,
                    bytesPerRow: 4 * size.width, space: own ?? sRGB, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue
                )
                context?.draw(image, in: CGRect(x: 0, y: 0, width: size.width, height: size.height))
                return context != nil
            }
            if !isDrawn { throw SegmenterError(.image, "the photo's colours cannot be read; give an RGB image of 8 bits") }
            pixels = Photo(storedSize: size, stored: stored, orientation: orientation)
        }

        /// For showing it, upright.
        public func image() throws -> CGImage {
            let rowBytes = 4 * size.width
            var upright = Data(count: rowBytes * size.height)
            upright.withUnsafeMutableBytes { bytes in
                let upright = bytes.bindMemory(to: UInt8.self)
                for y in 0..<size.height {
                    readRow(y, into: UnsafeMutableBufferPointer(rebasing: upright[rowBytes * y..<rowBytes * (y + 1)]))
                }
            }
            return try makeImage(upright, size, .noneSkipLast, colourSpace)
        }
    }

    /// The photo with alpha 255 in the mask and 0 outside.
    public func cutout(_ photo: ColourPhoto, _ mask: Mask) throws -> CGImage {
        let pixels: [UInt8] = try cutout(photo.pixels, mask)
        return try makeImage(Data(pixels), mask.size, .last, photo.colourSpace)
    }

    /// The image as the content of a PNG file.
    public func pngData(_ image: CGImage) throws -> Data {
        let data = NSMutableData()
        let png = "public.png" as CFString
        guard let destination = CGImageDestinationCreateWithData(data as CFMutableData, png, 1, nil) else {
            throw SegmenterError(.engine, "this system cannot write PNG files; restart it")
        }
        CGImageDestinationAddImage(destination, image, nil)
        guard CGImageDestinationFinalize(destination) else {
            throw SegmenterError(.engine, "the PNG file cannot be made; give a smaller photo")
        }
        return data as Data
    }

    extension Mask {
        /// The mask's outlines, in the photo's pixels.
        public func path() -> CGPath {
            let path = CGMutablePath()
            for ring in polygons(self) {
                path.addLines(between: ring.map { CGPoint(x: $0.x, y: $0.y) })
                path.closeSubpath()
            }
            return path
        }
    }

    /// An image over RGBA bytes.
    private func makeImage(
        _ pixels: Data, _ size: PixelSize, _ alpha: CGImageAlphaInfo, _ colourSpace: CGColorSpace
    ) throws -> CGImage {
        let image = CGDataProvider(data: pixels as CFData).flatMap { provider in
            CGImage(
                width: size.width, height: size.height, bitsPerComponent: 8, bitsPerPixel: 32,
                bytesPerRow: 4 * size.width, space: colourSpace, bitmapInfo: CGBitmapInfo(rawValue: alpha.rawValue),
                provider: provider, decode: nil, shouldInterpolate: true, intent: .defaultIntent
            )
        }
        guard let image else { throw SegmenterError(.engine, "no memory for a picture of \(size) pixels; close other apps") }
        return image
    }
#endif
