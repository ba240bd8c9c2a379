// As far as the sample uses it.
public struct UTType: Sendable {
    public static let folder = UTType()
}
