// SwiftUI, as far as the view and the sample use it, to compile them: nothing is shown.
import CoreGraphics
@_exported import Foundation
@_exported import UniformTypeIdentifiers

@MainActor @preconcurrency
public protocol View {
    associatedtype Body: View
    @ViewBuilder @MainActor @preconcurrency var body: Body { get }
}

extension Never: View {
    public var body: Never { fatalError("nothing is shown") }
}

/// Every view here that has nothing to show.
public protocol Leaf: View where Body == Never {}
extension Leaf {
    public var body: Never { fatalError("nothing is shown") }
}

extension Optional: View where Wrapped: View {
    public var body: Never { fatalError("nothing is shown") }
}

public struct EmptyView: Leaf { nonisolated public init() {} }
public struct TupleView<each V: View>: Leaf { nonisolated init(_ views: repeat each V) {} }
public struct ConditionalContent<A: View, B: View>: Leaf { nonisolated init() {} }

@resultBuilder
public struct ViewBuilder {
    public static func buildBlock() -> EmptyView { EmptyView() }
    public static func buildBlock<V: View>(_ view: V) -> V { view }
    public static func buildBlock<each V: View>(_ views: repeat each V) -> TupleView<repeat each V> { TupleView(repeat each views) }
    public static func buildExpression<V: View>(_ view: V) -> V { view }
    public static func buildIf<V: View>(_ view: V?) -> V? { view }
    public static func buildEither<A: View, B: View>(first: A) -> ConditionalContent<A, B> { ConditionalContent() }
    public static func buildEither<A: View, B: View>(second: B) -> ConditionalContent<A, B> { ConditionalContent() }
}

@MainActor @preconcurrency
public protocol Scene {
    associatedtype Body: Scene
    @MainActor @preconcurrency var body: Body { get }
}
extension Never: Scene {}

public struct WindowGroup<Content: View>: Scene {
    public init(@ViewBuilder content: () -> Content) {}
    public var body: Never { fatalError("nothing is shown") }
}

@MainActor @preconcurrency
public protocol App {
    associatedtype Body: Scene
    @MainActor @preconcurrency var body: Body { get }
    init()
}
extension App {
    public static func main() {}
}

// State.

@propertyWrapper
public struct Binding<Value> {
    private let get: () -> Value
    public init(get: @escaping () -> Value, set: @escaping (Value) -> Void) { self.get = get }
    public var wrappedValue: Value { get { get() } nonmutating set {} }
}

@propertyWrapper
public struct State<Value> {
    private let value: Value
    public init(wrappedValue: Value) { value = wrappedValue }
    public init() where Value: ExpressibleByNilLiteral { value = nil }
    public var wrappedValue: Value { get { value } nonmutating set {} }
    public var projectedValue: Binding<Value> { Binding(get: { value }, set: { _ in }) }
}

public protocol ObservableObject: AnyObject {}

@propertyWrapper
public struct Published<Value> {
    public var wrappedValue: Value
    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }
}

@MainActor @preconcurrency @propertyWrapper
public struct ObservedObject<Object: ObservableObject> {
    public var wrappedValue: Object
    public init(wrappedValue: Object) { self.wrappedValue = wrappedValue }
}

@MainActor @preconcurrency @propertyWrapper
public struct StateObject<Object: ObservableObject> {
    public let wrappedValue: Object
    public init(wrappedValue: @autoclosure @escaping () -> Object) { self.wrappedValue = wrappedValue() }
}

// Views.

public struct Text: Leaf { public init(_ text: some StringProtocol) {} }
public struct Spacer: Leaf { public init() {} }
public struct Label<Title: View, Icon: View>: Leaf {
    public init(_ title: String, systemImage: String) where Title == Text, Icon == Image {}
}
public struct Button<Label: View>: Leaf {
    public init(_ title: String, action: @escaping @MainActor () -> Void) where Label == Text {}
}
public struct TextField<Label: View>: Leaf { public init(_ title: String, text: Binding<String>) where Label == Text {} }
public struct ProgressView<Label: View>: Leaf { public init(value: Double?) where Label == EmptyView {} }
public struct ShareLink<Label: View>: Leaf { public init(_ title: String, item: URL) where Label == Text {} }
public struct Picker<Label: View, Value: Hashable, Content: View>: Leaf {
    public init(_ title: String, selection: Binding<Value>, @ViewBuilder content: () -> Content) where Label == Text {}
}
public struct Form<Content: View>: Leaf { public init(@ViewBuilder content: () -> Content) {} }
public struct VStack<Content: View>: Leaf { public init(@ViewBuilder content: () -> Content) {} }
public struct HStack<Content: View>: Leaf { public init(@ViewBuilder content: () -> Content) {} }
public struct TabView<Content: View>: Leaf { public init(@ViewBuilder content: () -> Content) {} }
public struct ZStack<Content: View>: Leaf {
    public init(alignment: Alignment, @ViewBuilder content: () -> Content) {}
}
public struct ForEach<Items: RandomAccessCollection, ID: Hashable, Content: View>: Leaf {
    public init(_ items: Items, id: KeyPath<Items.Element, ID>, @ViewBuilder content: @escaping (Items.Element) -> Content) {}
}
public struct GeometryProxy { public let size: CGSize }
public struct GeometryReader<Content: View>: Leaf {
    public init(@ViewBuilder content: @escaping (GeometryProxy) -> Content) {}
}
public struct Image: Leaf {
    public init(decorative image: CGImage, scale: CGFloat) {}
    public func resizable() -> Image { self }
}

// Shapes.

public protocol Shape: View {}
extension Shape {
    public func fill(_ colour: Color, style: FillStyle = FillStyle()) -> some View { EmptyView() }
    public func stroke(_ colour: Color, lineWidth: CGFloat) -> some View { EmptyView() }
    public func transform(_ transform: CGAffineTransform) -> some Shape { Rectangle() }
}
public struct Rectangle: Shape, Leaf { public init() {} }
public struct Path: Shape, Leaf {
    public init(_ path: CGPath) {}
    public init(_ rectangle: CGRect) {}
    public init(ellipseIn rectangle: CGRect) {}
}
public struct FillStyle { public init(eoFill: Bool = false) {} }
public struct Color: Leaf, Sendable {
    public static let blue = Color(), yellow = Color(), green = Color(), red = Color()
    public func opacity(_ opacity: Double) -> Color { self }
}
public struct Font: Sendable { public static let footnote = Font() }
public struct Alignment: Sendable { public static let topLeading = Alignment() }

// Gestures.

public protocol Gesture {}
public struct DragGesture: Gesture {
    public struct Value { public let startLocation: CGPoint, location: CGPoint }
    public init(minimumDistance: CGFloat) {}
    public func onChanged(_ action: @escaping @MainActor (Value) -> Void) -> DragGesture { self }
    public func onEnded(_ action: @escaping @MainActor (Value) -> Void) -> DragGesture { self }
}

// Modifiers.

public protocol PickerStyle {}
public struct SegmentedPickerStyle: PickerStyle {}
extension PickerStyle where Self == SegmentedPickerStyle {
    public static var segmented: SegmentedPickerStyle { SegmentedPickerStyle() }
}

extension View {
    public func padding() -> some View { self }
    public func font(_ font: Font?) -> some View { self }
    public func disabled(_ isDisabled: Bool) -> some View { self }
    public func frame(width: CGFloat, height: CGFloat) -> some View { self }
    public func offset(x: CGFloat, y: CGFloat) -> some View { self }
    public func tag(_ tag: some Hashable) -> some View { self }
    public func pickerStyle(_ style: some PickerStyle) -> some View { self }
    public func tabItem(@ViewBuilder _ label: () -> some View) -> some View { self }
    public func contentShape(_ shape: some Shape) -> some View { self }
    public func gesture(_ gesture: some Gesture) -> some View { self }
    public func accessibilityElement() -> some View { self }
    public func accessibilityLabel(_ label: Text) -> some View { self }
    public func task(_ action: @escaping @MainActor @Sendable () async -> Void) -> some View { self }
    public func onChange<V: Equatable>(of value: V, _ action: @escaping @MainActor (_ old: V, _ new: V) -> Void) -> some View { self }
    public func fileImporter(
        isPresented: Binding<Bool>, allowedContentTypes: [UTType], onCompletion: @escaping @MainActor (Result<URL, any Error>) -> Void
    ) -> some View { self }
}

extension URL {
    public func startAccessingSecurityScopedResource() -> Bool { true }
    public func stopAccessingSecurityScopedResource() {}
}
