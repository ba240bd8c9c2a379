"""What the graphs on (B, H, W, C) share: LiteRT's and ExecuTorch's; how a layer is written stays theirs."""
