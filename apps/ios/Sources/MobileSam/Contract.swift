/// What goes into the two models and what comes out, as mobilesam_export/contract.py says.
public let contractVersion = "1"

/// Larger photos are refused before memory is taken.
public let largestPhotoPixels = 64_000_000

/// RGB, 0 to 255, for what the photo does not cover of the model frame.
let padColour: [Float] = [123.675, 116.28, 103.53]

/// The same for encoders that take 8-bit pixels.
let padColour8Bit: [UInt8] = [124, 116, 104]

/// Values of the decoder's `point_labels`.
enum SlotLabel {
    /// An unused slot, masked out of every attention.
    static let absent: Float = -2
    /// SAM's padding point: one at (0, 0) whenever points come without a box.
    static let padding: Float = -1
    static let boxTopLeft: Float = 2
    static let boxBottomRight: Float = 3
}

/// The decoder's masks: row 0 the single answer, rows 1 to 3 the alternatives for one ambiguous tap.
let maskCount = 4
let maskThreshold: Float = 0

public struct PixelSize: Equatable, Sendable, CustomStringConvertible {
    public var width: Int
    public var height: Int

    public init(width: Int, height: Int) {
        self.width = width
        self.height = height
    }

    public var description: String { "\(width) x \(height)" }
}
