// CoreGraphics, as far as the kit uses it, with bodies that are enough for the tests on Linux: images are RGBA bytes in memory.
// CGFloat, CGPoint, CGSize and CGRect are Foundation's there.
@_exported import Foundation

public final class CGColorSpace {
    public enum Model { case rgb, monochrome }
    public static let sRGB: CFString = "sRGB"
    public static let displayP3: CFString = "displayP3"
    public let name: CFString
    public var model: Model { .rgb }
    public var supportsOutput: Bool { true }
    public init?(name: CFString) { self.name = name }
}

public enum CGImageAlphaInfo: UInt32 {
    case last = 3
    case noneSkipLast = 5
}

public struct CGBitmapInfo {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
}

public enum CGColorRenderingIntent { case defaultIntent }

public final class CGDataProvider {
    let data: Data
    public init?(data: CFData) { self.data = data }
}

public final class CGImage {
    public let width: Int
    public let height: Int
    public let colorSpace: CGColorSpace?
    /// Not in the real one: what the tests look at.
    public let bytes: Data
    public let alpha: CGBitmapInfo

    public init?(
        width: Int, height: Int, bitsPerComponent: Int, bitsPerPixel: Int, bytesPerRow: Int, space: CGColorSpace,
        bitmapInfo: CGBitmapInfo, provider: CGDataProvider, decode: UnsafePointer<CGFloat>?, shouldInterpolate: Bool,
        intent: CGColorRenderingIntent
    ) {
        guard bitsPerComponent == 8, bitsPerPixel == 32, bytesPerRow == 4 * width, provider.data.count == bytesPerRow * height
        else { return nil }
        (self.width, self.height, colorSpace, bytes, alpha) = (width, height, space, provider.data, bitmapInfo)
    }
}

public final class CGContext {
    private let data: UnsafeMutableRawPointer
    private let size: CGSize

    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int,
        space: CGColorSpace, bitmapInfo: UInt32
    ) {
        guard let data, bitsPerComponent == 8, bytesPerRow == 4 * width else { return nil }
        self.data = data
        size = CGSize(width: width, height: height)
    }

    public func draw(_ image: CGImage, in rectangle: CGRect) {
        precondition(rectangle == CGRect(origin: .zero, size: size) && size == CGSize(width: image.width, height: image.height))
        image.bytes.copyBytes(to: data.assumingMemoryBound(to: UInt8.self), count: image.bytes.count)
    }
}

public class CGPath {
    /// Not in the real one: what the tests look at.
    public fileprivate(set) var corners: [[CGPoint]] = []
    fileprivate init() {}
}

public final class CGMutablePath: CGPath {
    public override init() {}
    public func addLines(between points: [CGPoint]) { corners.append(points) }
    public func closeSubpath() {}
}

public struct CGAffineTransform: Equatable {
    public var a, b, c, d, tx, ty: CGFloat
    public init(a: CGFloat, b: CGFloat, c: CGFloat, d: CGFloat, tx: CGFloat, ty: CGFloat) {
        (self.a, self.b, self.c, self.d, self.tx, self.ty) = (a, b, c, d, tx, ty)
    }
}

// What the bridge to Objective-C does on Apple's systems.
public typealias CFString = String
public typealias CFData = Data
public typealias CFMutableData = NSMutableData
public typealias CFDictionary = [String: Any]
