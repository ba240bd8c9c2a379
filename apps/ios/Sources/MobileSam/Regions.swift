/// Fill regions outside the mask of fewer than `area` pixels. Neighbours are 8, as in SAM; a region at the photo's edge counts.
public func fillHoles(_ mask: Mask, area: Int) -> Mask {
    var holes = Regions(mask, isInside: false)
    return Mask(size: mask.size, data: holes.painted(mask.data, 1) { pixels, _ in pixels < area }, logits: mask.logits)
}

/// Drop regions of the mask of fewer than `area` pixels; the largest stays (the first of equal ones) if all are small.
public func removeIslands(_ mask: Mask, area: Int) -> Mask {
    var islands = Regions(mask, isInside: true)
    let largest = islands.largest
    let data = islands.painted(mask.data, 0) { pixels, region in pixels < area && region != largest }
    return Mask(size: mask.size, data: data, logits: mask.logits)
}

/// Regions of pixels in or outside the mask, as runs along the rows: of a large photo there are far fewer runs than pixels.
///
/// A run's region is told by the region's first run in reading order, its root.
private struct Regions {
    private var runs: [Range<Int>] = []  // indices of pixels
    private var parents: [Int] = []
    private var areas: [Int] = []  // at the roots

    init(_ mask: Mask, isInside: Bool) {
        let width = mask.size.width
        var above = 0  // the first run of the row above
        for y in 0..<mask.size.height {
            let here = runs.count
            addRuns(of: mask, in: y * width..<(y + 1) * width, isInside: isInside)
            var upper = above
            for run in here..<runs.count {
                let left = runs[run].lowerBound - width - 1  // one pixel further on both sides: corners touch
                let right = runs[run].upperBound - width
                while upper < here && runs[upper].upperBound <= left { upper += 1 }
                var touching = upper
                while touching < here && runs[touching].lowerBound <= right {
                    join(touching, run)
                    touching += 1
                }
            }
            above = here
        }
        areas = [Int](repeating: 0, count: runs.count)
        for run in runs.indices { areas[root(run)] += runs[run].count }
    }

    private mutating func addRuns(of mask: Mask, in row: Range<Int>, isInside: Bool) {
        mask.data.withUnsafeBufferPointer { data in
            var at = row.lowerBound
            while at < row.upperBound {
                let start = at
                while at < row.upperBound && (data[at] != 0) == isInside { at += 1 }
                if at > start {
                    parents.append(runs.count)
                    runs.append(start..<at)
                }
                at += 1
            }
        }
    }

    private mutating func root(_ run: Int) -> Int {
        var at = run
        while parents[at] != at {
            parents[at] = parents[parents[at]]
            at = parents[at]
        }
        return at
    }

    private mutating func join(_ a: Int, _ b: Int) {
        let (first, second) = (root(a), root(b))
        parents[max(first, second)] = min(first, second)
    }

    /// The root of the largest region, the first of equal ones; nil if there is none.
    var largest: Int? {
        var largest: Int?
        for run in runs.indices where areas[run] > 0 && areas[run] > (largest.map { areas[$0] } ?? 0) { largest = run }
        return largest
    }

    /// `data` with the pixels of the chosen regions set.
    mutating func painted(_ data: [UInt8], _ value: UInt8, _ isChosen: (_ pixels: Int, _ root: Int) -> Bool) -> [UInt8] {
        var painted = data
        for run in runs.indices {
            let root = root(run)
            if isChosen(areas[root], root) { for at in runs[run] { painted[at] = value } }
        }
        return painted
    }
}
