#if canImport(SwiftUI)
    import CoreGraphics
    import MobileSam
    import SwiftUI

    /// A photo that fits the view, with a mask's outline and the prompt over it: a tap gives a point, a drag a box, both in the
    /// photo's pixels.
    public struct SegmentView: View {
        private let photo: CGImage
        private let outline: CGPath?
        private let points: [PromptPoint]
        private let box: PromptBox?
        private let onTap: (_ x: Float, _ y: Float) -> Void
        private let onBox: (PromptBox) -> Void
        @State private var dragged: PromptBox?

        /// - Parameters:
        ///   - photo: upright.
        ///   - outline: `mask.path()`.
        public init(
            photo: CGImage, outline: CGPath? = nil, points: [PromptPoint] = [], box: PromptBox? = nil,
            onTap: @escaping (_ x: Float, _ y: Float) -> Void, onBox: @escaping (PromptBox) -> Void
        ) {
            self.photo = photo
            self.outline = outline
            self.points = points
            self.box = box
            self.onTap = onTap
            self.onBox = onBox
        }

        public var body: some View {
            GeometryReader { geometry in
                let fit = Fit(photo: PixelSize(width: photo.width, height: photo.height), view: geometry.size)
                ZStack(alignment: .topLeading) {
                    Image(decorative: photo, scale: 1)
                        .resizable()
                        .frame(width: fit.shown.width, height: fit.shown.height)
                        .offset(x: fit.shown.minX, y: fit.shown.minY)
                    if let outline {
                        Path(outline)
                            .transform(fit.toView)
                            .fill(Color.blue.opacity(0.4), style: FillStyle(eoFill: true))
                    }
                    if let box = dragged ?? box {
                        Path(fit.rectangle(box)).stroke(Color.yellow, lineWidth: 2)
                    }
                    ForEach(Array(points.enumerated()), id: \.offset) { _, point in
                        let place = fit.place(point.x, point.y)
                        Path(ellipseIn: CGRect(x: place.x - 6, y: place.y - 6, width: 12, height: 12))
                            .fill(point.label == 1 ? Color.green : Color.red)
                    }
                }
                .contentShape(Rectangle())
                .gesture(
                    DragGesture(minimumDistance: 0)
                        .onChanged { drag in dragged = fit.box(from: drag.startLocation, to: drag.location) }
                        .onEnded { drag in
                            dragged = nil
                            if let box = fit.box(from: drag.startLocation, to: drag.location) {
                                onBox(box)
                            } else if let point = fit.point(drag.startLocation) {
                                onTap(point.x, point.y)
                            }
                        }
                )
            }
            .accessibilityElement()
            .accessibilityLabel(Text("Photo. Tap an object, or drag a box around it."))
        }
    }

    /// Where a photo lies in a view that it fits, centred.
    struct Fit {
        /// A finger that moved less, in points, has tapped.
        static let shortestDrag: CGFloat = 12

        let photo: PixelSize
        let shown: CGRect
        private let scale: CGFloat

        init(photo: PixelSize, view: CGSize) {
            self.photo = photo
            scale = min(view.width / CGFloat(photo.width), view.height / CGFloat(photo.height))
            let width = CGFloat(photo.width) * scale
            let height = CGFloat(photo.height) * scale
            shown = CGRect(x: (view.width - width) / 2, y: (view.height - height) / 2, width: width, height: height)
        }

        var toView: CGAffineTransform {
            CGAffineTransform(a: scale, b: 0, c: 0, d: scale, tx: shown.minX, ty: shown.minY)
        }

        func place(_ x: Float, _ y: Float) -> CGPoint {
            CGPoint(x: shown.minX + CGFloat(x) * scale, y: shown.minY + CGFloat(y) * scale)
        }

        func rectangle(_ box: PromptBox) -> CGRect {
            let corner = place(box.x0, box.y0)
            return CGRect(x: corner.x, y: corner.y, width: CGFloat(box.x1 - box.x0) * scale, height: CGFloat(box.y1 - box.y0) * scale)
        }

        /// In the photo's pixels; nil beside the photo.
        func point(_ place: CGPoint) -> (x: Float, y: Float)? {
            let x = (place.x - shown.minX) / scale
            let y = (place.y - shown.minY) / scale
            guard x >= 0, y >= 0, x <= CGFloat(photo.width), y <= CGFloat(photo.height) else { return nil }
            return (Float(x), Float(y))
        }

        /// A drag as a box within the photo; nil if it was a tap, or none of it is left there.
        func box(from start: CGPoint, to end: CGPoint) -> PromptBox? {
            if max(abs(end.x - start.x), abs(end.y - start.y)) < Self.shortestDrag { return nil }
            func inside(_ value: CGFloat, _ least: CGFloat, _ side: Int) -> Float {
                Float(min(max((value - least) / scale, 0), CGFloat(side)))
            }
            let box = PromptBox(
                x0: inside(min(start.x, end.x), shown.minX, photo.width),
                y0: inside(min(start.y, end.y), shown.minY, photo.height),
                x1: inside(max(start.x, end.x), shown.minX, photo.width),
                y1: inside(max(start.y, end.y), shown.minY, photo.height)
            )
            return box.x0 < box.x1 && box.y0 < box.y1 ? box : nil
        }
    }
#endif
