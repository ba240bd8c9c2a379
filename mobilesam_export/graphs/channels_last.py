"""Building blocks on (B, H, W, C), the layout of LiteRT."""

import torch
from torch import Tensor, nn

from reference.layer_norm_2d import LayerNorm2d


class ConvNhwc(nn.Module):
    """A convolution on (B, H, W, C); the converter absorbs both transposes into the operator's own layout.

    Args:
        conv: weights as PyTorch stores them (out, in / groups, kh, kw).
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C_in) to (B, H', W', C_out)."""
        x = self.conv(x.permute(0, 3, 1, 2))  # BHWC -> BCHW
        return x.permute(0, 2, 3, 1)  # BCHW -> BHWC


def pointwise(weight: Tensor, bias: Tensor | None = None) -> ConvNhwc:
    """A linear layer's (out, in) weight and (out,) bias as a 1x1 convolution."""
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    conv.weight.data = weight.detach().float()[:, :, None, None].clone()
    if bias is not None:
        assert conv.bias is not None
        conv.bias.data = bias.detach().float().clone()
    return ConvNhwc(conv.requires_grad_(False))


def normalise(x: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last axis without its affine; keeping that axis spares the reshapes of ``F.layer_norm``."""
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + eps)


class LayerNormNhwc(nn.Module):
    """LayerNorm over the last axis where no linear layer follows that could take the affine.

    In the neck a zero-padded 3x3 convolution follows, through which beta cannot go.
    """

    def __init__(self, norm: nn.LayerNorm | LayerNorm2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().clone())
        self.bias = nn.Parameter(norm.bias.detach().clone())
        self.eps = norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        return normalise(x, self.eps) * self.weight + self.bias
