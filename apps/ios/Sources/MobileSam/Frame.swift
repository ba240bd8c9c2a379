/// How an encoder takes its image: channel by channel, or pixel by pixel.
public enum FrameLayout: Sendable {
    case nchw, nhwc
}

/// The encoder's input as float32: the resized photo in the top-left corner of S x S, the rest in the pad colour.
public func modelFrame(_ photo: RGBImage, imageSize: Int, layout: FrameLayout) -> [Float] {
    var frame = [Float](repeating: 0, count: 3 * imageSize * imageSize)
    frame.withUnsafeMutableBufferPointer { frame in
        forEachFrameValue(photo.size, imageSize, layout) { at, from, channel in
            frame[at] = from.map { Float(photo.data[$0]) } ?? padColour[channel]
        }
    }
    return frame
}

/// The same for encoders that take 8-bit pixels.
public func modelFrame8Bit(_ photo: RGBImage, imageSize: Int, layout: FrameLayout) -> [UInt8] {
    var frame = [UInt8](repeating: 0, count: 3 * imageSize * imageSize)
    frame.withUnsafeMutableBufferPointer { frame in
        forEachFrameValue(photo.size, imageSize, layout) { at, from, channel in
            frame[at] = from.map { photo.data[$0] } ?? padColour8Bit[channel]
        }
    }
    return frame
}

/// Each value of the frame: where it goes, where in the photo's data it comes from (nil: padding), its channel.
private func forEachFrameValue(
    _ photo: PixelSize, _ imageSize: Int, _ layout: FrameLayout, _ set: (_ at: Int, _ from: Int?, _ channel: Int) -> Void
) {
    let pixelStep = layout == .nchw ? 1 : 3
    let channelStep = layout == .nchw ? imageSize * imageSize : 1
    for y in 0..<imageSize {
        for x in 0..<imageSize {
            let isCovered = x < photo.width && y < photo.height
            for channel in 0..<3 {
                let at = (y * imageSize + x) * pixelStep + channel * channelStep
                set(at, isCovered ? (y * photo.width + x) * 3 + channel : nil, channel)
            }
        }
    }
}
