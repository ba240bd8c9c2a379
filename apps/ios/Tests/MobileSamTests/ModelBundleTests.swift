import Foundation
import XCTest

@testable import MobileSam

/// Manifests and model files from outside.
final class ModelBundleTests: XCTestCase {
    private static let manifest = """
        {"format": "mobilesam-export-bundle", "contract_version": "1", "weights": {"sha256": "abc", "notice": null},
        "targets": {"onnx": 7, "coreml": {"precision": "float16", "options": {}, "contract": {"version": "1", "image_size": 128,
        "max_points": 8}, "files": [
        {"path": "coreml/e.mlpackage", "role": "encoder", "kind": "tree", "size_bytes": 3, "sha256": "x"},
        {"path": "coreml/d.mlpackage", "role": "decoder", "kind": "tree", "size_bytes": 4, "sha256": "y"}]}}}
        """

    private func read(_ old: String = "", _ new: String = "") throws -> ModelBundle {
        let changed = old.isEmpty ? Self.manifest : Self.manifest.replacingOccurrences(of: old, with: new)
        if !old.isEmpty { XCTAssertNotEqual(changed, Self.manifest, old) }
        return try ModelBundle(manifest: Data(changed.utf8))
    }

    func testAManifestIsBelievedOnlyWhereItIsChecked() async throws {
        let bundle = try read()
        XCTAssertEqual([bundle.model.imageSize, bundle.model.maxPoints, bundle.encoder.sizeBytes, bundle.decoder.sizeBytes], [128, 8, 3, 4])
        XCTAssertEqual([bundle.model.precision, bundle.model.weightsSha256, bundle.encoder.path], ["float16", "abc", "coreml/e.mlpackage"])
        XCTAssertNil(bundle.model.notice)
        try XCTAssertNil(read("\"max_points\": 8", "\"max_points\": null").model.maxPoints)
        await expect(.contractVersion) { _ = try read("contract_version\": \"1", "contract_version\": \"2") }
        await expect(.contractVersion) { _ = try read("\"version\": \"1", "\"version\": \"2") }
        let damages = [
            ("mobilesam-export-bundle", "zip"), ("\"coreml\"", "\"tflite\""), ("128", "129"), ("128", "1e9"), ("128", "\"128\""),
            ("8}", "0.5}"), ("8}", "0}"), ("coreml/e", "../e"), ("coreml/e", "/e"), ("size_bytes\": 3", "size_bytes\": 3e12"),
            ("\"decoder\"", "\"else\""), ("\"options\": {}", "\"options\": {\"single_mask\": true}"), ("}}}", ""), ("{", "["),
        ]
        for (old, new) in damages { await expect(.modelFile) { _ = try read(old, new) } }
        await expect(.modelFile) { _ = try ModelBundle(manifest: Data(String(repeating: "[", count: 100_000).utf8)) }
    }

    func testAMissingTruncatedOrChangedModelIsRefused() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? FileManager.default.removeItem(at: folder) }
        let package = folder.appendingPathComponent("e.mlpackage")
        try FileManager.default.createDirectory(at: package.appendingPathComponent("Data/b"), withIntermediateDirectories: true)
        func write(_ text: String, _ name: String) throws { try Data(text.utf8).write(to: package.appendingPathComponent(name)) }
        // find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum
        let sum = "dc5c5bd6185322ba6fc28bf0979a892c7d56c16eb45b9030737740120efc896e"
        let tree = try file("e.mlpackage", "tree", 6, sum)
        await expect(.modelFile) { try tree.check(in: folder) }  // nothing is there
        try write("abc", "Data/b/weight.bin")
        try write("d", "Data/Z")
        try write("ef", "Manifest.json")
        try tree.check(in: folder)
        try write("ee", "Manifest.json")
        await expect(.modelFile) { try tree.check(in: folder) }
        try write("eff", "Manifest.json")
        await expect(.modelFile) { try tree.check(in: folder) }
        let one = try file("e.mlpackage/Data/b/weight.bin", "file", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        try one.check(in: folder)
        try write("ab", "Data/b/weight.bin")
        await expect(.modelFile) { try one.check(in: folder) }
        await expect(.modelFile) { _ = try ModelBundle(folder: folder) }  // no manifest
        try Data(repeating: 32, count: 1 << 21).write(to: folder.appendingPathComponent("manifest.json"))
        await expect(.modelFile) { _ = try ModelBundle(folder: folder) }
    }

    func testSha256IsTheStandards() {
        func sum(_ text: String) -> String {
            var sum = Sha256()
            sum.update(Data(text.utf8))
            return sum.finish()
        }
        XCTAssertEqual(sum(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        XCTAssertEqual(sum("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        var million = Sha256()
        for _ in 0..<1000 { million.update(Data(repeating: 97, count: 1000)) }
        XCTAssertEqual(million.finish(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
        // Lengths around the padding's turn.
        XCTAssertEqual(sum(String(repeating: "a", count: 55)), "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318")
        XCTAssertEqual(sum(String(repeating: "a", count: 56)), "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a")
        XCTAssertEqual(sum(String(repeating: "a", count: 64)), "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb")
    }

    private func file(_ path: String, _ kind: String, _ sizeBytes: Int, _ sha256: String) throws -> ModelFile {
        let json = ["path": path, "kind": kind, "role": "encoder", "size_bytes": sizeBytes, "sha256": sha256] as [String: Any]
        return try JSONDecoder().decode(ModelFile.self, from: JSONSerialization.data(withJSONObject: json))
    }
}
