import Foundation

/// What a host needs to know of the two models.
public struct ModelInfo: Equatable, Sendable {
    /// S, the side of the model frame.
    public let imageSize: Int
    /// Slots of the decoder; nil for any number.
    public let maxPoints: Int?
    public let precision: String
    public let weightsSha256: String
    /// What everybody who uses these weights must know, or nil.
    public let notice: String?

    /// Values from outside: they are checked.
    public init(imageSize: Int, maxPoints: Int?, precision: String, weightsSha256: String, notice: String?) throws {
        guard (32...4096).contains(imageSize), imageSize % 32 == 0 else { throw damaged("image_size \(imageSize)") }
        if let maxPoints, !(1...1024).contains(maxPoints) { throw damaged("max_points \(maxPoints)") }
        self.imageSize = imageSize
        self.maxPoints = maxPoints
        self.precision = precision
        self.weightsSha256 = weightsSha256
        self.notice = notice
    }
}

/// A bundle's manifest.json, as far as one target goes.
public struct ModelBundle: Equatable, Sendable {
    public let model: ModelInfo
    public let encoder: ModelFile
    /// Equal to `encoder` if one file has both.
    public let decoder: ModelFile

    /// Read the manifest in `folder`. Everything in it is checked: it comes from outside.
    public init(folder: URL, target: String = "coreml") throws {
        try self.init(manifest: readBytes(folder.appendingPathComponent("manifest.json"), most: 1 << 20), target: target)
    }

    public init(manifest: Data, target: String = "coreml") throws {
        let decoder = JSONDecoder()
        decoder.userInfo[targetKey] = target
        let root: Manifest
        do {
            root = try decoder.decode(Manifest.self, from: manifest)
        } catch let error as DecodingError {
            throw damaged(error.place)
        } catch {
            throw damaged("not JSON")
        }
        guard root.format == "mobilesam-export-bundle" else { throw damaged("format \(root.format)") }
        guard let entry = root.targets.found else {
            throw SegmenterError(
                .modelFile, "the bundle has no \(target) files; export them with --target \(target)"
            )
        }
        try checkContractVersion(root.contract_version)
        try checkContractVersion(entry.contract.version)
        if entry.options?.official_decoder == true || entry.options?.single_mask == true {
            throw SegmenterError(
                .modelFile, "the decoder has another interface; export without --official-decoder and --single-mask"
            )
        }
        model = try ModelInfo(
            imageSize: entry.contract.image_size,
            maxPoints: entry.contract.max_points,
            precision: entry.precision,
            weightsSha256: root.weights.sha256,
            notice: root.weights.notice
        )
        encoder = try entry.file("encoder")
        self.decoder = try entry.file("decoder")
    }
}

/// `path` is relative to manifest.json; an `.mlpackage` is a folder, whose sha256 is that of its files' list.
public struct ModelFile: Equatable, Sendable, Decodable {
    public let path: String
    public let kind: String
    public let role: String
    public let sizeBytes: Int
    public let sha256: String

    private enum CodingKeys: String, CodingKey {
        case path, kind, role, sha256
        case sizeBytes = "size_bytes"
    }

    /// Compare a model file in a bundle's folder with the manifest, its size first and then its sha256.
    public func check(in folder: URL) throws {
        let place = folder.appendingPathComponent(path)
        let files = try kind == "tree" ? filesUnder(place) : [""]
        var found = 0
        for file in files { found += try byteCount(place.appendingPathComponent(file)) }
        if found != sizeBytes {
            throw SegmenterError(.modelFile, "\(path) has \(found) bytes instead of \(sizeBytes); copy it again")
        }
        var sum = ""
        if kind == "tree" {
            var list = Sha256()
            for file in files { list.update(Data("\(try sha256(of: place.appendingPathComponent(file)))  \(file)\n".utf8)) }
            sum = list.finish()
        } else {
            sum = try sha256(of: place)
        }
        if sum != sha256 {
            throw SegmenterError(.modelFile, "\(path) has been changed (another sha256); copy it again")
        }
    }

    /// The files of a package, by their paths in it, in the order of their bytes.
    private func filesUnder(_ package: URL) throws -> [String] {
        guard let paths = FileManager.default.enumerator(atPath: package.path) else { throw isMissing }
        var files: [String] = []
        for case let file as String in paths {
            var isFolder: ObjCBool = false
            let place = package.appendingPathComponent(file).path
            if FileManager.default.fileExists(atPath: place, isDirectory: &isFolder), !isFolder.boolValue { files.append(file) }
        }
        if files.isEmpty { throw isMissing }
        return files.sorted { Array($0.utf8).lexicographicallyPrecedes(Array($1.utf8)) }
    }

    private func byteCount(_ file: URL) throws -> Int {
        guard let size = try? FileManager.default.attributesOfItem(atPath: file.path)[.size] as? NSNumber else { throw isMissing }
        return size.intValue
    }

    private func sha256(of file: URL) throws -> String {
        try explaining(.modelFile, "\(path) cannot be read") {
            let handle = try FileHandle(forReadingFrom: file)
            defer { try? handle.close() }
            var sum = Sha256()
            while let chunk = try handle.read(upToCount: 1 << 20), !chunk.isEmpty { sum.update(chunk) }
            return sum.finish()
        }
    }

    private var isMissing: SegmenterError {
        SegmenterError(.modelFile, "\(path) is missing from the bundle; copy the whole folder")
    }
}

/// Refuse models of another contract version than this code's.
package func checkContractVersion(_ version: String) throws {
    if version == contractVersion { return }
    throw SegmenterError(
        .contractVersion,
        "the models follow contract version \(version.prefix(40)), this code \(contractVersion); "
            + "export them again, or update mobilesam"
    )
}

/// A small file of a bundle.
func readBytes(_ file: URL, most: Int) throws -> Data {
    try explaining(.modelFile, "\(file.lastPathComponent) cannot be read; copy the whole folder") {
        let handle = try FileHandle(forReadingFrom: file)
        defer { try? handle.close() }
        let bytes = try handle.read(upToCount: most + 1) ?? Data()
        if bytes.count > most {
            throw SegmenterError(.modelFile, "\(file.lastPathComponent) has more than \(most) bytes; copy the bundle again")
        }
        return bytes
    }
}

private func damaged(_ what: String) -> SegmenterError {
    SegmenterError(.modelFile, "manifest.json is no bundle's manifest (\(what.prefix(80))); export the bundle again")
}

private let targetKey = CodingUserInfoKey(rawValue: "target")!

/// The manifest's own names.
private struct Manifest: Decodable {
    struct Contract: Decodable {
        let version: String
        let image_size: Int
        let max_points: Int?
    }
    struct Options: Decodable {
        let official_decoder: Bool?
        let single_mask: Bool?
    }
    struct Target: Decodable {
        let precision: String
        let options: Options?
        let contract: Contract
        let files: [ModelFile]

        func file(_ role: String) throws -> ModelFile {
            guard let file = files.first(where: { $0.role == role || $0.role == "combined" }) else { throw damaged("no \(role)") }
            let isInside = !file.path.hasPrefix("/") && !file.path.contains("\\") && !file.path.split(separator: "/").contains("..")
            guard isInside, !file.path.isEmpty else { throw damaged("path \(file.path)") }
            guard (1...1 << 30).contains(file.sizeBytes) else { throw damaged("size_bytes \(file.sizeBytes)") }
            return file
        }
    }
    /// One of the targets; the others are nobody's business here.
    struct Targets: Decodable {
        let found: Target?

        init(from decoder: any Decoder) throws {
            let name = decoder.userInfo[targetKey] as? String ?? ""
            found = try decoder.container(keyedBy: Name.self).decodeIfPresent(Target.self, forKey: Name(stringValue: name))
        }
    }
    struct Name: CodingKey {
        let stringValue: String
        var intValue: Int? { nil }
        init(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }
    struct Weights: Decodable {
        let sha256: String
        let notice: String?
    }

    let format: String
    let contract_version: String
    let weights: Weights
    let targets: Targets
}

extension DecodingError {
    /// Where the JSON is not what it should be.
    var place: String {
        let context: Context
        switch self {
        case .typeMismatch(_, let found), .valueNotFound(_, let found), .dataCorrupted(let found): context = found
        case .keyNotFound(let key, let found): return "no \((found.codingPath + [key]).map(\.stringValue).joined(separator: "."))"
        @unknown default: return "not as expected"
        }
        return context.codingPath.isEmpty ? "not JSON" : context.codingPath.map(\.stringValue).joined(separator: ".")
    }
}
