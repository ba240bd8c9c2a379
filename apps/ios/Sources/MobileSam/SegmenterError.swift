import Foundation

/// What went wrong; the same strings in every host (apps/README.md).
public enum ErrorCode: String, Sendable, CaseIterable {
    case noImage = "no_image"
    case noPrompt = "no_prompt"
    case pointOutside = "point_outside"
    case pointLabel = "point_label"
    case boxCorners = "box_corners"
    case tooManyPoints = "too_many_points"
    case maskSize = "mask_size"
    case image
    case contractVersion = "contract_version"
    case modelFile = "model_file"
    case engine
    case cancelled
    case closed
}

/// One sentence that says what was got and what to do next, and a code to switch on.
public struct SegmenterError: LocalizedError, Equatable, Sendable {
    public let code: ErrorCode
    public let message: String

    public init(_ code: ErrorCode, _ message: String) {
        self.code = code
        self.message = message
    }

    public var errorDescription: String? { message }
}

/// Run `body`; an error that is no SegmenterError yet gets `code`, and `told` before its own first line.
package func explaining<T>(_ code: ErrorCode, _ told: String, _ body: () throws -> T) throws -> T {
    do {
        return try body()
    } catch let error as SegmenterError {
        throw error
    } catch {
        let reason = error.localizedDescription.split(whereSeparator: \.isNewline).first ?? "no reason was given"
        throw SegmenterError(code, "\(told) (\(reason))")
    }
}
