import CoreGraphics
import ImageIO
import MobileSam
import MobileSamCoreML
import XCTest

@testable import MobileSamUI

/// Photos from files, cut-outs, outlines, and where a tap lies.
final class ImagesTests: XCTestCase {
    /// 3 x 2, turned by 90 degrees when taken.
    private let pixels: [UInt8] = (0..<24).map { UInt8($0) }

    func testAPhotoIsReadUprightAndKeepsItsColourSpace() throws {
        let photo = try ColourPhoto(Photograph.file(width: 3, height: 2, orientation: 6, pixels: pixels))
        XCTAssertEqual(photo.size, PixelSize(width: 2, height: 3))
        XCTAssertEqual(photo.colourSpace.name, CGColorSpace.displayP3)
        let shown = try photo.image()
        XCTAssertEqual([shown.width, shown.height], [2, 3])
        XCTAssertEqual([UInt8](shown.bytes), [3, 0, 4, 1, 5, 2].flatMap { pixel in (0..<4).map { UInt8(4 * pixel + $0) } })
    }

    func testAPhotoThatCannotBeDecodedOrIsTooLargeIsRefusedBeforeItsPixels() {
        let large = Photograph.file(width: 10_000, height: 10_000, orientation: 1, pixels: [])
        for file in [Data(), Data("no photo".utf8), large] {
            XCTAssertThrowsError(try ColourPhoto(file)) { XCTAssertEqual(($0 as? SegmenterError)?.code, .image) }
        }
    }

    func testACutOutIsAnImageWithTheMaskAsAlpha() throws {
        let photo = try ColourPhoto(Photograph.file(width: 3, height: 2, orientation: 1, pixels: pixels))
        let cut = try cutout(photo, Mask(size: photo.size, data: [1, 0, 0, 0, 0, 1], logits: []))
        XCTAssertEqual((0..<6).map { cut.bytes[4 * $0 + 3] }, [255, 0, 0, 0, 0, 255])
        XCTAssertEqual(Array(cut.bytes[20...22]), [20, 21, 22])
        XCTAssertEqual(cut.alpha.rawValue, CGImageAlphaInfo.last.rawValue)
        try XCTAssertEqual(pngData(cut), cut.bytes)
    }

    func testAMasksOutlineIsAPath() {
        let mask = Mask(size: PixelSize(width: 3, height: 1), data: [0, 1, 1], logits: [])
        XCTAssertEqual(mask.path().corners, [[CGPoint(x: 1, y: 0), CGPoint(x: 3, y: 0), CGPoint(x: 3, y: 1), CGPoint(x: 1, y: 1)]])
    }

    func testATapLiesInThePhotosPixelsAndADragIsABoxWithinIt() throws {
        // 200 x 100 pixels in 100 x 100 points: half the scale, 25 points above and below.
        let fit = Fit(photo: PixelSize(width: 200, height: 100), view: CGSize(width: 100, height: 100))
        XCTAssertEqual(fit.shown, CGRect(x: 0, y: 25, width: 100, height: 50))
        let tap = try XCTUnwrap(fit.point(CGPoint(x: 10, y: 30)))
        XCTAssertEqual([tap.x, tap.y], [20, 10])
        XCTAssertEqual(fit.place(tap.x, tap.y), CGPoint(x: 10, y: 30))
        XCTAssertNil(fit.point(CGPoint(x: 10, y: 20)))
        XCTAssertNil(fit.box(from: CGPoint(x: 10, y: 30), to: CGPoint(x: 15, y: 35)))
        let box = fit.box(from: CGPoint(x: 60, y: 60), to: CGPoint(x: 10, y: 10))
        XCTAssertEqual(box, PromptBox(x0: 20, y0: 0, x1: 120, y1: 70))
        XCTAssertNil(fit.box(from: CGPoint(x: 10, y: 2), to: CGPoint(x: 60, y: 20)))  // beside the photo
        XCTAssertEqual(fit.rectangle(PromptBox(x0: 20, y0: 0, x1: 120, y1: 70)), CGRect(x: 10, y: 25, width: 50, height: 35))
    }
}
