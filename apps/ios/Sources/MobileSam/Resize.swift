/// Weights are integers of this many fractional bits, as in PIL, so that the result is PIL's to the bit.
private let precisionBits: Int32 = 22
private let half: Int32 = 1 << (precisionBits - 1)
private let one = Double(Int32(1) << precisionBits)

/// The size that a photo takes in a model frame of side `imageSize`.
public func resizedSize(_ photo: PixelSize, imageSize: Int) -> PixelSize {
    let scale = Double(imageSize) / Double(max(photo.width, photo.height))
    func side(_ pixels: Int) -> Int { max(1, Int((Double(pixels) * scale + 0.5).rounded(.down))) }
    return PixelSize(width: side(photo.width), height: side(photo.height))
}

/// Resize so that the longest side is `imageSize`: antialiased bilinear, as PIL does it.
///
/// Horizontal first and rounded to 8 bits, then vertical. Between rows `checkActive` may throw, to stop.
public func resizeLongestSide(
    _ photo: some PixelSource, imageSize: Int, checkActive: () throws -> Void = {}
) throws -> RGBImage {
    let from = photo.size
    let to = resizedSize(from, imageSize: imageSize)
    let columns = to.width == from.width ? nil : Taps(from: from.width, to: to.width)
    var across = [UInt8](repeating: 0, count: 3 * to.width * from.height)
    var row = [UInt8](repeating: 0, count: 4 * from.width)
    try across.withUnsafeMutableBufferPointer { across in
        try row.withUnsafeMutableBufferPointer { row in
            for y in 0..<from.height {
                if y % 64 == 0 { try checkActive() }
                try photo.readRow(y, into: row)
                let target = UnsafeMutableBufferPointer(rebasing: across[3 * y * to.width..<3 * (y + 1) * to.width])
                if let columns {
                    resizeRow(row, by: columns, into: target)
                } else {
                    for x in 0..<to.width { for channel in 0..<3 { target[3 * x + channel] = row[4 * x + channel] } }
                }
            }
        }
    }
    if to.height == from.height { return RGBImage(size: to, data: across) }
    let down = resizeDown(across, rowBytes: 3 * to.width, by: Taps(from: from.height, to: to.height), height: to.height)
    return RGBImage(size: to, data: down)
}

/// For each of `to` output pixels: where its input pixels begin, how many there are, and their weights.
private struct Taps {
    /// Weights of output pixel i begin at `i * most`.
    let most: Int
    var first: [Int] = []
    var counts: [Int] = []
    var weights: [Int32]

    init(from: Int, to: Int) {
        let scale = Double(from) / Double(to)
        let support = max(scale, 1)
        most = Int(support.rounded(.up)) * 2 + 1
        weights = [Int32](repeating: 0, count: to * most)
        for i in 0..<to {
            let centre = (Double(i) + 0.5) * scale
            let low = max(0, Int(centre - support + 0.5))
            let high = min(from, Int(centre + support + 0.5))
            var exact: [Double] = []
            for j in low..<high {
                let distance: Double = (Double(j) - centre + 0.5) * (1 / support)
                exact.append(max(0, 1 - abs(distance)))
            }
            let sum: Double = exact.reduce(0, +)
            first.append(low)
            counts.append(exact.count)
            for (k, weight) in exact.enumerated() {
                weights[i * most + k] = Int32(weight / sum * one + 0.5)
            }
        }
    }
}

private func clamp(_ sum: Int32) -> UInt8 {
    UInt8(truncatingIfNeeded: min(max(sum >> precisionBits, 0), 255))
}

private func resizeRow(
    _ from: UnsafeMutableBufferPointer<UInt8>, by columns: Taps, into to: UnsafeMutableBufferPointer<UInt8>
) {
    columns.weights.withUnsafeBufferPointer { weights in
        for x in 0..<columns.first.count {
            var (r, g, b) = (half, half, half)
            var pixel = 4 * columns.first[x]
            let begin = x * columns.most
            for k in begin..<begin + columns.counts[x] {
                r &+= Int32(from[pixel]) &* weights[k]
                g &+= Int32(from[pixel + 1]) &* weights[k]
                b &+= Int32(from[pixel + 2]) &* weights[k]
                pixel += 4
            }
            to[3 * x] = clamp(r)
            to[3 * x + 1] = clamp(g)
            to[3 * x + 2] = clamp(b)
        }
    }
}

private func resizeDown(_ from: [UInt8], rowBytes: Int, by rows: Taps, height: Int) -> [UInt8] {
    var to = [UInt8](repeating: 0, count: rowBytes * height)
    var sums = [Int32](repeating: 0, count: rowBytes)
    from.withUnsafeBufferPointer { from in
        sums.withUnsafeMutableBufferPointer { sums in
            to.withUnsafeMutableBufferPointer { to in
                for y in 0..<height {
                    sums.update(repeating: half)
                    for k in 0..<rows.counts[y] {
                        let weight = rows.weights[y * rows.most + k]
                        let offset = (rows.first[y] + k) * rowBytes
                        for i in 0..<rowBytes { sums[i] &+= Int32(from[offset + i]) &* weight }
                    }
                    for i in 0..<rowBytes { to[y * rowBytes + i] = clamp(sums[i]) }
                }
            }
        }
    }
    return to
}
