"""ExecuTorch: PyTorch's own runtime for phones, on XNNPACK."""
