// CoreVideo's pixel buffers, as far as the kit uses them. Rows are padded, as they may be on a device.
@_exported import CoreGraphics

public final class CVPixelBuffer {
    public let width: Int
    public let height: Int
    let bytesPerRow: Int
    let base: UnsafeMutableRawPointer
    fileprivate(set) var locks = 0

    init(width: Int, height: Int) {
        (self.width, self.height, bytesPerRow) = (width, height, 4 * width + 64)
        base = .allocate(byteCount: bytesPerRow * height, alignment: 64)
    }

    deinit { base.deallocate() }
}

public let kCVPixelFormatType_32BGRA: UInt32 = 0x4247_5241
public let kCVPixelBufferIOSurfacePropertiesKey: CFString = "IOSurfaceProperties"

public struct CVPixelBufferLockFlags: OptionSet, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    public static let readOnly = CVPixelBufferLockFlags(rawValue: 1)
}

@discardableResult
public func CVPixelBufferCreate(
    _ allocator: Never?, _ width: Int, _ height: Int, _ format: UInt32, _ options: CFDictionary?,
    _ made: UnsafeMutablePointer<CVPixelBuffer?>
) -> Int32 {
    precondition(format == kCVPixelFormatType_32BGRA)
    made.pointee = CVPixelBuffer(width: width, height: height)
    return 0
}

@discardableResult
public func CVPixelBufferLockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> Int32 {
    buffer.locks += 1
    return 0
}

@discardableResult
public func CVPixelBufferUnlockBaseAddress(_ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags) -> Int32 {
    buffer.locks -= 1
    return 0
}

public func CVPixelBufferGetBaseAddress(_ buffer: CVPixelBuffer) -> UnsafeMutableRawPointer? {
    buffer.locks > 0 ? buffer.base : nil
}

public func CVPixelBufferGetBytesPerRow(_ buffer: CVPixelBuffer) -> Int { buffer.bytesPerRow }
