import Foundation
import MobileSam
import XCTest

#if canImport(ImageIO) && canImport(Darwin)
    import CoreGraphics
    import ImageIO
#endif

/// Every case of the conformance vectors.
final class VectorsTests: XCTestCase {
    private func file() throws -> ConformanceFile { try ConformanceFile.read() }

    func testPhotosAreResizedToPILsOwnPixels() throws {
        let cases = try file().resize
        XCTAssertGreaterThanOrEqual(cases.count, 20)
        for found in cases {
            let photo = size(found.photo_size)
            let resized = try resizeLongestSide(MadeUpPhoto(photo), imageSize: found.image_size)
            XCTAssertEqual(resized.size, size(found.resized_size), found.name)
            let got = someRows(resized.data, 3 * resized.size.width, found.rows)
            // Of photos this tall Pillow resizes the height first, which moves some pixels by one level.
            try XCTAssertLessThanOrEqual(farthest(got, ConformanceFile.bytes(found.pixels)), photo.height > 2 * photo.width ? 1 : 0, found.name)
        }
    }

    func testPhotosOfAllOrientationsAreReadUpright() throws {
        let cases = try file().orientation
        XCTAssertEqual(cases.map(\.orientation), Array(1...8))
        for found in cases {
            let stored = MadeUpPhoto(size(found.stored_size))
            let photo = Photo(storedSize: stored.size, stored: stored.rgba(), orientation: Orientation(exif: found.orientation))
            XCTAssertEqual(photo.size, size(found.upright_size), found.name)
            try XCTAssertEqual(rgb(photo), ConformanceFile.bytes(found.pixels), found.name)
        }
        XCTAssertEqual(Orientation(exif: 9), .upright)
    }

    func testModelFramesHaveThePhotoAndTheExactPadColour() throws {
        let cases = try file().frames
        XCTAssertGreaterThanOrEqual(cases.count, 6)
        for found in cases {
            let resized = try resizeLongestSide(MadeUpPhoto(size(found.photo_size)), imageSize: found.image_size)
            let layout: FrameLayout = found.layout == "nchw" ? .nchw : .nhwc
            if found.pixels.dtype == "uint8" {
                let got = modelFrame8Bit(resized, imageSize: found.image_size, layout: layout)
                try XCTAssertEqual(got, ConformanceFile.bytes(found.pixels), found.name)
            } else {
                let got = modelFrame(resized, imageSize: found.image_size, layout: layout)
                try XCTAssertEqual(got, ConformanceFile.floats(found.pixels), found.name)
            }
        }
    }

    func testPromptsBecomeSlots() throws {
        let cases = try file().prompts
        XCTAssertGreaterThanOrEqual(cases.count, 90)
        for asked in cases {
            let photo = size(asked.photo_size)
            try checkPrompt(
                asked.promptPoints, box: asked.promptBox, hasMask: asked.previous_mask, photo: photo, maxPoints: asked.max_points
            )
            let slots = try promptSlots(
                asked.promptPoints, box: asked.promptBox, photo: photo, imageSize: XCTUnwrap(asked.image_size),
                maxPoints: asked.max_points
            )
            XCTAssertEqual(slots.labels, asked.point_labels, asked.name)
            let expected = try XCTUnwrap(asked.point_coords).flatMap { $0 }
            XCTAssertEqual(slots.coords.count, expected.count, asked.name)
            for (got, wanted) in zip(slots.coords, expected) { XCTAssertEqual(got, wanted, accuracy: 0.001, asked.name) }
            let isMultimask = isAmbiguous(asked.promptPoints, box: asked.promptBox, hasMask: asked.previous_mask)
            XCTAssertEqual(isMultimask, asked.multimask, asked.name)
            XCTAssertEqual(asked.previous_mask ? 1 : 0, asked.has_mask_input, asked.name)
        }
    }

    func testWrongPromptsAreRefusedByTheirCodes() throws {
        let cases = try file().prompt_errors
        XCTAssertGreaterThanOrEqual(cases.count, 10)
        for asked in cases {
            XCTAssertThrowsError(
                try checkPrompt(
                    asked.promptPoints, box: asked.promptBox, hasMask: asked.previous_mask, photo: size(asked.photo_size),
                    maxPoints: asked.max_points
                ),
                asked.name
            ) { XCTAssertEqual(($0 as? SegmenterError)?.code.rawValue, asked.error, asked.name) }
        }
    }

    func testTheBestOfThreeIsChosenForOneTap() throws {
        let cases = try file().choices
        XCTAssertGreaterThanOrEqual(cases.count, 4)
        for found in cases {
            XCTAssertEqual(bestRow(multimask: found.multimask, iouPredictions: found.iou_predictions), found.row, found.name)
        }
    }

    func testLogitsBecomeMasks() throws {
        let cases = try file().masks
        XCTAssertGreaterThanOrEqual(cases.count, 15)
        for found in cases {
            let logits = try found.logits.map(ConformanceFile.floats) ?? madeUpLogits(imageSize: found.image_size)
            let mask = logitsToMask(logits, imageSize: found.image_size, photo: size(found.photo_size))
            let got = someRows(mask.data, mask.size.width, found.rows)
            let expected = try ConformanceFile.bytes(found.mask)
            XCTAssertEqual(got.count, expected.count, found.name)
            // 2 is either: the reference's logit is at the threshold there.
            XCTAssertNil(expected.indices.first { expected[$0] != 2 && expected[$0] != got[$0] }, found.name)
        }
    }

    func testHolesAreFilledAndIslandsRemoved() throws {
        let cases = try file().regions
        XCTAssertGreaterThanOrEqual(cases.count, 70)
        for found in cases {
            let mask = try ConformanceFile.mask(found.mask)
            let got = found.operation == "fill_holes" ? fillHoles(mask, area: found.area) : removeIslands(mask, area: found.area)
            try XCTAssertEqual(got.data, ConformanceFile.bytes(found.result), found.name)
        }
    }

    func testMasksBecomePolygons() throws {
        let cases = try file().polygons
        XCTAssertGreaterThanOrEqual(cases.count, 10)
        for found in cases {
            let rings = try polygons(ConformanceFile.mask(found.mask)).map { $0.map { [$0.x, $0.y] } }
            XCTAssertEqual(rings, found.rings, found.name)
        }
    }

    #if canImport(ImageIO) && canImport(Darwin)
        /// Only where there is a decoder.
        func testJPEGFilesOfAllOrientationsAreReadUpright() throws {
            for found in try file().orientation {
                let file = ConformanceFile.folder.appendingPathComponent(found.jpeg)
                let source = try XCTUnwrap(CGImageSourceCreateWithURL(file as CFURL, nil))
                let image = try XCTUnwrap(CGImageSourceCreateImageAtIndex(source, 0, nil))
                var stored = [UInt8](repeating: 0, count: 4 * image.width * image.height)
                stored.withUnsafeMutableBytes { bytes in
                    CGContext(
                        data: bytes.baseAddress, width: image.width, height: image.height, bitsPerComponent: 8,
                        bytesPerRow: 4 * image.width, space: CGColorSpace(name: CGColorSpace.sRGB)!,
                        bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue
                    )?.draw(image, in: CGRect(x: 0, y: 0, width: image.width, height: image.height))
                }
                let photo = Photo(
                    storedSize: PixelSize(width: image.width, height: image.height), stored: stored,
                    orientation: Orientation(exif: found.orientation)
                )
                try XCTAssertLessThanOrEqual(farthest(rgb(photo), ConformanceFile.bytes(found.jpeg_pixels)), 8, found.name)
            }
        }
    #endif

    /// Rows of a result that a case holds.
    private func someRows(_ data: [UInt8], _ rowBytes: Int, _ rows: [Int]?) -> [UInt8] {
        rows.map { $0.flatMap { data[$0 * rowBytes..<($0 + 1) * rowBytes] } } ?? data
    }

    private func farthest(_ got: [UInt8], _ expected: [UInt8]) -> Int {
        if got.count != expected.count { return 256 }
        return zip(got, expected).reduce(0) { max($0, abs(Int($1.0) - Int($1.1))) }
    }

    private func rgb(_ photo: Photo) -> [UInt8] {
        var row = [UInt8](repeating: 0, count: 4 * photo.size.width)
        return (0..<photo.size.height).flatMap { y in
            row.withUnsafeMutableBufferPointer { photo.readRow(y, into: $0) }
            return row.indices.filter { $0 % 4 != 3 }.map { row[$0] }
        }
    }
}
