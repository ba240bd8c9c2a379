"""The Core ML target: ML Programs for iOS and macOS."""
