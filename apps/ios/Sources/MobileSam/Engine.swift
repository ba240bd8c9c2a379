/// Both models in one runtime. Made and used on one thread at a time; calls never overlap. It is closed by being let go.
public protocol Engine: AnyObject {
    /// What runs where, for people: the engine, a comma, the compute unit.
    var description: String { get }

    /// Embed an upright photo that was resized to the model frame's scale.
    func encode(_ photo: RGBImage) throws -> Embedding

    /// `mask` holds S/4 x S/4 logits, or nil. The same `embedding` object as before need not be copied again.
    func decode(_ embedding: Embedding, _ slots: Slots, mask: [Float]?) throws -> Decoded
}

/// What the encoder made of a photo, in the engine's own order.
public final class Embedding: Sendable {
    public let values: [Float]

    public init(_ values: [Float]) {
        self.values = values
    }
}

/// 4 x S/4 x S/4 logits, one map after the other, and 4 predicted IoUs.
public struct Decoded: Sendable {
    public let logits: [Float]
    public let iouPredictions: [Float]

    public init(logits: [Float], iouPredictions: [Float]) {
        self.logits = logits
        self.iouPredictions = iouPredictions
    }
}
