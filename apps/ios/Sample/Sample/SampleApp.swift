import SwiftUI

@main
struct SampleApp: App {
    @StateObject private var session = Session()

    var body: some Scene {
        WindowGroup {
            TabView {
                SegmentScreen(session: session)
                    .tabItem { Label("Cut out", systemImage: "scissors") }
                MeasureScreen(session: session)
                    .tabItem { Label("Measure", systemImage: "stopwatch") }
            }
            .task { session.open(.all) }
        }
    }
}
