// ImageIO, as far as the kit uses it. The only "file" that it decodes is the tests' own: see `Photograph`.
import CoreGraphics
@_exported import Foundation

/// Not in the real one: a file that says its size, its orientation and its pixels, "width height orientation\n" and RGBA.
public struct Photograph {
    public static func file(width: Int, height: Int, orientation: Int, pixels: [UInt8]) -> Data {
        Data("\(width) \(height) \(orientation)\n".utf8) + Data(pixels)
    }
}

public final class CGImageSource {
    let numbers: [Int]
    let pixels: Data
    init?(_ file: Data) {
        guard let end = file.firstIndex(of: 10) else { return nil }
        numbers = String(decoding: file[..<end], as: UTF8.self).split(separator: " ").compactMap { Int($0) }
        pixels = Data(file[(end + 1)...])
        if numbers.count != 3 { return nil }
    }
}

public let kCGImagePropertyPixelWidth: CFString = "PixelWidth"
public let kCGImagePropertyPixelHeight: CFString = "PixelHeight"
public let kCGImagePropertyOrientation: CFString = "Orientation"

public func CGImageSourceCreateWithData(_ data: CFData, _ options: CFDictionary?) -> CGImageSource? { CGImageSource(data) }

/// The real one's result is a CFDictionary, which becomes a Swift one by `as?`.
public func CGImageSourceCopyPropertiesAtIndex(_ source: CGImageSource, _ index: Int, _ options: CFDictionary?) -> Any? {
    [
        kCGImagePropertyPixelWidth: source.numbers[0], kCGImagePropertyPixelHeight: source.numbers[1],
        kCGImagePropertyOrientation: source.numbers[2],
    ] as CFDictionary
}

public func CGImageSourceCreateImageAtIndex(_ source: CGImageSource, _ index: Int, _ options: CFDictionary?) -> CGImage? {
    CGImage(
        width: source.numbers[0], height: source.numbers[1], bitsPerComponent: 8, bitsPerPixel: 32,
        bytesPerRow: 4 * source.numbers[0], space: CGColorSpace(name: CGColorSpace.displayP3)!,
        bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.last.rawValue), provider: CGDataProvider(data: source.pixels)!,
        decode: nil, shouldInterpolate: false, intent: .defaultIntent
    )
}

public final class CGImageDestination {
    let data: NSMutableData
    init(_ data: NSMutableData) { self.data = data }
}

public func CGImageDestinationCreateWithData(
    _ data: CFMutableData, _ type: CFString, _ count: Int, _ options: CFDictionary?
) -> CGImageDestination? { CGImageDestination(data) }

public func CGImageDestinationAddImage(_ destination: CGImageDestination, _ image: CGImage, _ properties: CFDictionary?) {
    destination.data.append(image.bytes)
}

public func CGImageDestinationFinalize(_ destination: CGImageDestination) -> Bool { true }
