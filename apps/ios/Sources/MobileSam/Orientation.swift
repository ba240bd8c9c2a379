/// How the eight EXIF orientations are turned upright; raw values are EXIF's.
public enum Orientation: Int, Sendable, CaseIterable {
    case upright = 1, flipped, turned180, flippedDown, transposed, turned90, transversed, turned270

    /// By the number in a photo's EXIF data; what is no orientation is taken for upright, as viewers do.
    public init(exif number: Int) {
        self = Orientation(rawValue: number) ?? .upright
    }

    public func uprightSize(_ stored: PixelSize) -> PixelSize {
        isTransposed ? PixelSize(width: stored.height, height: stored.width) : stored
    }

    /// The stored pixel at which upright row `y` begins, and the step to the next one of the row.
    ///
    /// Transposed, upright pixel (x, y) lies at stored (y, x), else at (x, y); then that stored position is counted
    /// from the other end of its row or column.
    func uprightRow(_ y: Int, of stored: PixelSize) -> (pixel: Int, step: Int) {
        func pixel(_ x: Int) -> Int {
            let (u, v) = isTransposed ? (y, x) : (x, y)
            let column = isFromRight ? stored.width - 1 - u : u
            let row = isFromBottom ? stored.height - 1 - v : v
            return row * stored.width + column
        }
        return (pixel(0), pixel(1) - pixel(0))
    }

    private var isTransposed: Bool { rawValue >= 5 }
    private var isFromRight: Bool { [.flipped, .turned180, .transversed, .turned270].contains(self) }
    private var isFromBottom: Bool { [.turned180, .flippedDown, .turned90, .transversed].contains(self) }
}
