/// A tap, in the upright photo's pixels; a pixel's centre is at .5. `label` 1 is on the object, 0 not on it.
public struct PromptPoint: Equatable, Sendable {
    public var x: Float
    public var y: Float
    public var label: Int

    public init(x: Float, y: Float, label: Int = 1) {
        self.x = x
        self.y = y
        self.label = label
    }
}

/// Around the object, in the photo's pixels.
public struct PromptBox: Equatable, Sendable {
    public var x0: Float
    public var y0: Float
    public var x1: Float
    public var y1: Float

    public init(x0: Float, y0: Float, x1: Float, y1: Float) {
        self.x0 = x0
        self.y0 = y0
        self.x1 = x1
        self.y1 = y1
    }
}

/// The decoder's point inputs: x, y of each slot in model-frame pixels, and its label.
public struct Slots: Equatable, Sendable {
    public let coords: [Float]
    public let labels: [Float]
}

/// Whether the best of the three alternatives is wanted: one foreground point and nothing else.
public func isAmbiguous(_ points: [PromptPoint], box: PromptBox?, hasMask: Bool) -> Bool {
    points.count == 1 && points[0].label == 1 && box == nil && !hasMask
}

/// Which of the decoder's four masks to show; the first of equal ones.
public func bestRow(multimask: Bool, iouPredictions: [Float]) -> Int {
    if !multimask { return 0 }
    var best = 1
    for row in 2..<maskCount where iouPredictions[row] > iouPredictions[best] { best = row }
    return best
}

/// Throw a SegmenterError for a prompt without meaning on this photo. The order of checks is part of the host API.
public func checkPrompt(
    _ points: [PromptPoint], box: PromptBox?, hasMask: Bool, photo: PixelSize, maxPoints: Int?
) throws {
    if points.isEmpty && box == nil && !hasMask {
        throw SegmenterError(.noPrompt, "got no prompt; give points, a box or a previous mask")
    }
    func checkInside(_ x: Float, _ y: Float) throws {
        if x >= 0 && x <= Float(photo.width) && y >= 0 && y <= Float(photo.height) { return }  // NaN is not inside
        throw SegmenterError(
            .pointOutside, "(\(x), \(y)) is outside the photo of \(photo) pixels; give points inside it"
        )
    }
    for point in points { try checkInside(point.x, point.y) }
    if let box {
        try checkInside(box.x0, box.y0)
        try checkInside(box.x1, box.y1)
    }
    for point in points where point.label != 0 && point.label != 1 {
        throw SegmenterError(.pointLabel, "got point label \(point.label), expected 1 on the object or 0 not on it")
    }
    if let box, !(box.x0 < box.x1 && box.y0 < box.y1) {
        throw SegmenterError(
            .boxCorners,
            "got box \(box.x0), \(box.y0), \(box.x1), \(box.y1), expected x0 < x1 and y0 < y1; swap its corners"
        )
    }
    let slots = points.count + (box != nil ? 2 : points.isEmpty ? 0 : 1)
    if let maxPoints, slots > maxPoints {
        throw SegmenterError(
            .tooManyPoints,
            "got a prompt of \(slots) slots (a box takes two, a prompt without box one more than its points), "
                + "the decoder holds \(maxPoints); give fewer points"
        )
    }
}

/// The decoder's point inputs for a checked prompt.
///
/// Points without a box are followed by one padding point; a box is two points labelled as its corners; a mask alone has
/// absent slots only. `maxPoints` nil, a decoder for any number of points, gives no more slots than needed.
public func promptSlots(
    _ points: [PromptPoint], box: PromptBox?, photo: PixelSize, imageSize: Int, maxPoints: Int?
) -> Slots {
    let resized = resizedSize(photo, imageSize: imageSize)
    let scaleX = Double(resized.width) / Double(photo.width)
    let scaleY = Double(resized.height) / Double(photo.height)
    let count = maxPoints ?? points.count + (box != nil ? 2 : 1)
    var coords = [Float](repeating: 0, count: 2 * count)
    var labels = [Float](repeating: SlotLabel.absent, count: count)
    func set(_ slot: Int, _ x: Float, _ y: Float, _ label: Float) {
        coords[2 * slot] = Float(Double(x) * scaleX)
        coords[2 * slot + 1] = Float(Double(y) * scaleY)
        labels[slot] = label
    }
    for (slot, point) in points.enumerated() { set(slot, point.x, point.y, Float(point.label)) }
    if let box {
        set(points.count, box.x0, box.y0, SlotLabel.boxTopLeft)
        set(points.count + 1, box.x1, box.y1, SlotLabel.boxBottomRight)
    } else if !points.isEmpty {
        set(points.count, 0, 0, SlotLabel.padding)
    }
    return Slots(coords: coords, labels: labels)
}
