"""The TFLite target: for LiteRT on Android and in the browser."""
