import CoreML
import Foundation
import MobileSam
import MobileSamCoreML
import SwiftUI

/// The vectors' masks and twenty timed photos and taps on this device, as a receipt to send.
struct MeasureScreen: View {
    @ObservedObject var session: Session
    @State private var device = machineName()
    @State private var computeUnits = MLComputeUnits.all
    @State private var isChoosing = false
    @State private var part: Double?
    @State private var status = "Choose the folder vectors/ that mobilesam-export vectors has written."
    @State private var receipt: URL?

    private let choices: [MLComputeUnits] = [.all, .cpuAndNeuralEngine, .cpuAndGPU, .cpuOnly]

    var body: some View {
        Form {
            TextField("This device", text: $device)
            Picker("Compute units", selection: $computeUnits) {
                ForEach(choices, id: \.rawValue) { Text($0.forPeople).tag($0) }
            }
            if let part {
                ProgressView(value: part)
                Button("Stop") { session.stop() }
            } else {
                Button("Choose vectors and measure") { isChoosing = true }
                    .disabled(session.segmenter == nil)
            }
            Text(status).font(.footnote)
            if let receipt {
                ShareLink("Receipt", item: receipt)
            }
        }
        .onChange(of: computeUnits) { _, units in session.open(units) }
        .fileImporter(isPresented: $isChoosing, allowedContentTypes: [.folder]) { result in
            switch result {
            case .success(let folder): session.begin { await run(folder) }
            case .failure(let error): status = error.localizedDescription
            }
        }
    }

    @MainActor
    private func run(_ folder: URL) async {
        guard let segmenter = session.segmenter else { return }
        let isOpened = folder.startAccessingSecurityScopedResource()
        defer { if isOpened { folder.stopAccessingSecurityScopedResource() } }
        session.forgetPhoto()  // the segmenter will have others
        receipt = nil
        part = 0
        defer { part = nil }
        do {
            let vectors = try Vectors(folder: folder)
            let measured = try await measure(segmenter, vectors: vectors, device: device) { done, what in
                part = done
                status = what
            }
            let file = FileManager.default.temporaryDirectory.appendingPathComponent("receipt.json")
            try measured.json().write(to: file, options: .atomic)
            receipt = file
            status = "Lowest IoU \(measured.lowest_mask_iou) (\(measured.worst_case))"
        } catch {
            status = error.localizedDescription
        }
    }
}
