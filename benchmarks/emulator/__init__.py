"""ONNX and LiteRT files on an emulated 64-bit ARM processor, with its instructions counted."""
