import Foundation

/// What one device computed and how long it took, as apps/README.md says; `mobilesam-export receipts` reads it.
public struct Receipt: Encodable, Equatable, Sendable {
    public struct Times: Encodable, Equatable, Sendable {
        public let p50: Double
        public let p90: Double
        public let runs: Int

        init(_ milliseconds: [Double]) {
            let sorted = milliseconds.sorted()
            func percentile(_ p: Double) -> Double {
                let nearest = sorted[Int((p * Double(sorted.count)).rounded(.up)) - 1]
                return max(rounded(nearest, 100), 0.01)
            }
            p50 = percentile(0.5)
            p90 = percentile(0.9)
            runs = sorted.count
        }
    }

    let format = "mobilesam-receipt"
    let format_version = "1"
    public let device: String
    public let system: String
    public let desktop: Bool
    public let engine: String
    public let compute_unit: String
    public let image_size: Int
    public let precision: String
    public let weights_sha256: String
    let contract_version = contractVersion
    public let encode_ms: Times
    public let predict_ms: Times
    public let memory_mb: Int?
    public let cases: Int
    public let lowest_mask_iou: Double
    public let worst_case: String
    public let measured_at: String

    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return try encoder.encode(self)
    }
}

private let runs = 20

/// The vectors' masks on this device, and timed photos and taps.
///
/// `device` is a name for people. `progress` is told the part that is done, 0 to 1, and what it was.
public func measure(
    _ segmenter: Segmenter, vectors: Vectors, device: String,
    isolation: isolated (any Actor)? = #isolation, progress: (_ part: Double, _ what: String) -> Void
) async throws -> Receipt {
    let model = segmenter.model
    guard vectors.bundle.weights_sha256 == model.weightsSha256, vectors.bundle.image_size == model.imageSize,
        let first = vectors.photos.first
    else {
        throw SegmenterError(
            .modelFile,
            "the vectors are of other models; write them with: mobilesam-export vectors DIST/vectors --bundle DIST"
        )
    }
    let steps = vectors.photos.reduce(2 * runs) { $0 + 1 + $1.cases.count }
    var done = 0
    func step(_ what: String) {
        done += 1
        progress(Double(done) / Double(steps), what)
    }

    var (cases, lowest, worst) = (0, 1.0, "")
    for photo in vectors.photos {
        try await segmenter.setImage(vectors.pixels(photo))
        step(photo.name)
        for asked in photo.cases {
            let previous = try vectors.previousMask(asked)
            let (mask, _) = try await segmenter.predict(
                points: asked.promptPoints, box: asked.promptBox, previousMask: previous
            )
            let expected = try vectors.bytes(asked.mask)
            guard expected.count == mask.data.count else {
                throw SegmenterError(.modelFile, "\(asked.mask.file) is not a mask of its photo; write the vectors again")
            }
            let iou = maskIou(mask.data, expected)
            cases += 1
            if iou < lowest || worst.isEmpty { (lowest, worst) = (iou, "\(photo.name), \(asked.name)") }
            step("\(photo.name), \(asked.name): IoU \(rounded(iou, 1e5))")
        }
    }

    let pixels = try vectors.pixels(first)
    let middle = PromptPoint(x: Float(pixels.size.width) / 2, y: Float(pixels.size.height) / 2)
    let clock = ContinuousClock()
    func timed(_ call: () async throws -> Void) async rethrows -> Double {
        let begun = clock.now
        try await call()
        return (clock.now - begun) / .milliseconds(1)
    }
    var (photoTimes, tapTimes): ([Double], [Double]) = ([], [])
    try await segmenter.setImage(pixels)
    for run in 1...runs {
        try await photoTimes.append(timed { try await segmenter.setImage(pixels) })
        step("photo \(run) of \(runs)")
    }
    _ = try await segmenter.predict(points: [middle])
    for run in 1...runs {
        try await tapTimes.append(timed { _ = try await segmenter.predict(points: [middle]) })
        step("tap \(run) of \(runs)")
    }

    let described = segmenter.description.split(separator: ",", maxSplits: 1).map { $0.trimmingCharacters(in: .whitespaces) }
    let said = device.trimmingCharacters(in: .whitespacesAndNewlines)
    return Receipt(
        device: said.isEmpty ? "not said" : said,
        system: systemName(),
        desktop: isDesktop,
        engine: described.first ?? "not said",
        compute_unit: described.count > 1 ? described[1] : "not said",
        image_size: model.imageSize,
        precision: model.precision,
        weights_sha256: model.weightsSha256,
        encode_ms: Receipt.Times(photoTimes),
        predict_ms: Receipt.Times(tapTimes),
        memory_mb: peakMegabytes(),
        cases: cases,
        lowest_mask_iou: rounded(lowest, 1e5),
        worst_case: worst,
        measured_at: ISO8601DateFormatter().string(from: Date())
    )
}

/// What the system calls this machine: "iPhone16,2", "x86_64".
public func machineName() -> String {
    var name = utsname()
    uname(&name)
    return withUnsafeBytes(of: &name.machine) { bytes in String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self) }
}

private var isDesktop: Bool {
    #if os(iOS)
        return ProcessInfo.processInfo.isiOSAppOnMac
    #else
        return true
    #endif
}

private func systemName() -> String {
    #if os(iOS)
        let name = "iOS"
    #elseif os(macOS)
        let name = "macOS"
    #else
        let name = "Linux"
    #endif
    return "\(name), \(ProcessInfo.processInfo.operatingSystemVersionString)"
}

/// The most memory that the process ever had resident.
private func peakMegabytes() -> Int? {
    var usage = rusage()
    #if canImport(Darwin)
        guard getrusage(RUSAGE_SELF, &usage) == 0 else { return nil }
        return usage.ru_maxrss / 1_000_000  // bytes
    #else
        guard getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 else { return nil }
        return usage.ru_maxrss / 1000  // kilobytes
    #endif
}

private func rounded(_ value: Double, _ steps: Double) -> Double {
    (value * steps).rounded() / steps
}
