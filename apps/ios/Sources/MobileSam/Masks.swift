/// A mask at the photo's size.
public struct Mask: Equatable, Sendable {
    public let size: PixelSize
    /// 1 in the mask, 0 outside, row by row.
    public let data: [UInt8]
    /// S/4 x S/4, what `predict` takes as `previousMask`.
    public let logits: [Float]

    public init(size: PixelSize, data: [UInt8], logits: [Float]) {
        self.size = size
        self.data = data
        self.logits = logits
    }
}

/// The mask at the photo's size: logits to S x S, cropped to the resized photo, to the photo; the threshold is last.
public func logitsToMask(_ logits: [Float], imageSize: Int, photo: PixelSize) -> Mask {
    let low = PixelSize(width: imageSize / 4, height: imageSize / 4)
    let side = PixelSize(width: imageSize, height: imageSize)
    let resized = resizedSize(photo, imageSize: imageSize)
    var full = [Float](repeating: 0, count: resized.width * resized.height)
    var data = [UInt8](repeating: 0, count: photo.width * photo.height)
    full.withUnsafeMutableBufferPointer { full in
        resample(logits, from: low, to: side, crop: resized) { y, row in
            for x in 0..<resized.width { full[y * resized.width + x] = row[x] }
        }
    }
    data.withUnsafeMutableBufferPointer { data in
        resample(full, from: resized, to: photo, crop: photo) { y, row in
            for x in 0..<photo.width where row[x] > maskThreshold { data[y * photo.width + x] = 1 }
        }
    }
    return Mask(size: photo, data: data, logits: logits)
}

/// For `count` of the `to` output pixels: both input pixels and the weight of the higher one; half-pixel centres.
private struct Neighbours {
    var low: [Int] = []
    var high: [Int] = []
    var weight: [Double] = []

    init(from: Int, to: Int, count: Int) {
        for i in 0..<count {
            let source = max(0, (Double(i) + 0.5) * Double(from) / Double(to) - 0.5)
            low.append(min(Int(source), from - 1))
            high.append(min(low[i] + 1, from - 1))
            weight.append(source - Double(low[i]))
        }
    }
}

/// Bilinear without antialias from `from` to `to`, of which the top-left `crop` is made, one row at a time.
private func resample(
    _ values: [Float], from: PixelSize, to: PixelSize, crop: PixelSize, each: (_ y: Int, _ row: [Float]) -> Void
) {
    let across = Neighbours(from: from.width, to: to.width, count: crop.width)
    let down = Neighbours(from: from.height, to: to.height, count: crop.height)
    var row = [Float](repeating: 0, count: crop.width)
    values.withUnsafeBufferPointer { values in
        for y in 0..<crop.height {
            let top = down.low[y] * from.width
            let bottom = down.high[y] * from.width
            let v = down.weight[y]
            row.withUnsafeMutableBufferPointer { row in
                for x in 0..<crop.width {
                    let (left, right, u) = (across.low[x], across.high[x], across.weight[x])
                    let above = Double(values[top + left]) * (1 - u) + Double(values[top + right]) * u
                    let below = Double(values[bottom + left]) * (1 - u) + Double(values[bottom + right]) * u
                    row[x] = Float(above * (1 - v) + below * v)
                }
            }
            each(y, row)
        }
    }
}

/// Intersection over union of two masks of one size; 1 if both are empty.
public func maskIou(_ a: [UInt8], _ b: [UInt8]) -> Double {
    precondition(a.count == b.count, "got masks of \(a.count) and \(b.count) pixels; compare masks of one photo")
    var (intersection, union) = (0, 0)
    for (one, other) in zip(a, b) {
        if one != 0 || other != 0 { union += 1 }
        if one != 0 && other != 0 { intersection += 1 }
    }
    return union == 0 ? 1 : Double(intersection) / Double(union)
}
