"""MobileSAM as a Core AI asset, for iOS 27, macOS 27 and later."""
