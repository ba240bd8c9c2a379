"""The ONNX target: for ONNX Runtime on desktop, phone and in the browser."""
