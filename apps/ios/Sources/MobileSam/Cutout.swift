/// The photo's pixels, alpha 255 in the mask and 0 outside: red, green, blue, alpha, row by row, not premultiplied.
public func cutout(_ photo: some PixelSource, _ mask: Mask) throws -> [UInt8] {
    if photo.size != mask.size {
        throw SegmenterError(
            .image, "got a photo of \(photo.size) pixels for a mask of \(mask.size); give the mask's own photo"
        )
    }
    let width = mask.size.width
    var pixels = [UInt8](repeating: 0, count: 4 * width * mask.size.height)
    try pixels.withUnsafeMutableBufferPointer { pixels in
        for y in 0..<mask.size.height {
            let row = UnsafeMutableBufferPointer(rebasing: pixels[4 * y * width..<4 * (y + 1) * width])
            try photo.readRow(y, into: row)
            for x in 0..<width { row[4 * x + 3] = mask.data[y * width + x] != 0 ? 255 : 0 }
        }
    }
    return pixels
}
