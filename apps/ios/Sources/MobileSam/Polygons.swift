/// A corner between pixels.
public struct Corner: Equatable, Sendable {
    public let x: Int
    public let y: Int
}

// Directions are east 0, south 1, west 2, north 3.
private let stepX = [1, 0, -1, 0]
private let stepY = [0, 1, 0, -1]
/// For each direction the pixel to the right of the crack that leaves a corner, as an offset from the corner.
private let rightX = [0, -1, -1, 0]
private let rightY = [0, 0, -1, -1]
/// And the one to the left.
private let leftX = [0, 0, -1, -1]
private let leftY = [-1, 0, 0, -1]
/// What may follow a crack: right, straight on, left.
private let turns = [1, 0, 3]

/// The mask's outlines along the cracks between pixels, mask on the right-hand side: outer rings clockwise (y points
/// down), holes against. Pixels that touch at a corner only are apart. Fill them by either rule to get the mask back.
///
/// A ring is its corners, not repeating the first.
public func polygons(_ mask: Mask) -> [[Corner]] {
    let (width, height) = (mask.size.width, mask.size.height)
    return mask.data.withUnsafeBufferPointer { data in
        func isInside(_ x: Int, _ y: Int) -> Bool {
            x >= 0 && x < width && y >= 0 && y < height && data[y * width + x] != 0
        }
        func isEdge(_ x: Int, _ y: Int, _ direction: Int) -> Bool {
            isInside(x + rightX[direction], y + rightY[direction]) && !isInside(x + leftX[direction], y + leftY[direction])
        }
        // One bit a direction for each corner whose crack has been walked.
        var walked = [UInt8](repeating: 0, count: (width + 1) * (height + 1))
        func isWalked(_ x: Int, _ y: Int, _ direction: Int) -> Bool {
            walked[y * (width + 1) + x] & (1 << direction) != 0
        }

        func walk(_ startX: Int, _ startY: Int, _ first: Int) -> [Corner] {
            var ring: [Corner] = []
            var (x, y, direction, before) = (startX, startY, first, -1)
            while !isWalked(x, y, direction) {
                walked[y * (width + 1) + x] |= 1 << direction
                if direction != before { ring.append(Corner(x: x, y: y)) }
                x += stepX[direction]
                y += stepY[direction]
                before = direction
                // One of the three is an edge: the crack that was walked has the mask on its right.
                direction = turns.lazy.map { (before + $0) % 4 }.first { isEdge(x, y, $0) }!
            }
            return ring
        }

        var rings: [[Corner]] = []
        for y in 0...height {
            for x in 0...width {
                for first in 0...1 where isEdge(x, y, first) && !isWalked(x, y, first) { rings.append(walk(x, y, first)) }
            }
        }
        return rings
    }
}
