package mobilesam

/** A photo's row with alpha 255 in the mask and 0 outside, in place; 0xAARRGGBB. */
fun cutOutRow(row: IntArray, mask: Mask, y: Int) {
    val offset = y * mask.size.width
    for (x in 0 until mask.size.width) {
        row[x] = if (mask.data[offset + x] != 0.toByte()) row[x] or (0xff shl 24) else row[x] and 0xffffff
    }
}

/** The mask's row in two colours; 0xAARRGGBB. */
fun paintMaskRow(mask: Mask, y: Int, inside: Int, outside: Int, into: IntArray) {
    val offset = y * mask.size.width
    for (x in 0 until mask.size.width) into[x] = if (mask.data[offset + x] != 0.toByte()) inside else outside
}

/** The photo with alpha 255 in the mask and 0 outside, row by row. */
fun cutout(photo: PixelSource, mask: Mask): IntArray {
    checkSameSize(photo.size, mask)
    val (width, height) = mask.size
    val pixels = IntArray(width * height)
    val row = IntArray(width)
    for (y in 0 until height) {
        photo.readRow(y, row)
        cutOutRow(row, mask, y)
        row.copyInto(pixels, y * width)
    }
    return pixels
}

/** Refuse another photo than the mask's. */
fun checkSameSize(photo: Size, mask: Mask) {
    if (photo == mask.size) return
    throw SegmenterError(
        ErrorCode.IMAGE,
        "got a photo of ${photo.width} x ${photo.height} pixels for a mask of ${mask.size.width} x ${mask.size.height}; " +
            "give the mask's own photo",
    )
}
