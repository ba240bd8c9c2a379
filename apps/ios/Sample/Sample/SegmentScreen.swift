import MobileSamUI
import PhotosUI
import SwiftUI

/// Camera roll, tap, cut-out.
struct SegmentScreen: View {
    @ObservedObject var session: Session
    @State private var chosen: PhotosPickerItem?
    @State private var label = 1

    var body: some View {
        VStack {
            Text(session.status).font(.footnote)
            if let photo = session.shown {
                SegmentView(
                    photo: photo, outline: session.outline, points: session.points, box: session.box,
                    onTap: { x, y in session.tap(x: x, y: y, label: label) },
                    onBox: { session.drag($0) }
                )
            } else {
                Spacer()
            }
            Picker("A tap is", selection: $label) {
                Text("On the object").tag(1)
                Text("Not on it").tag(0)
            }
            .pickerStyle(.segmented)
            HStack {
                PhotosPicker("Photo", selection: $chosen, matching: .images)
                    .disabled(session.segmenter == nil)
                Spacer()
                Button("Undo") { session.undo() }
                    .disabled(session.points.isEmpty && session.box == nil)
                Spacer()
                if let file = session.cutoutFile {
                    ShareLink("Share", item: file)
                } else {
                    Button("Cut out") { session.cutOut() }
                        .disabled(session.mask == nil)
                }
            }
        }
        .padding()
        .onChange(of: chosen) { _, item in
            guard let item else { return }
            session.choose { try await item.loadTransferable(type: Data.self) }
        }
    }
}
