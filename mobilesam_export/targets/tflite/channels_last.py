"""Building blocks on (B, H, W, C), the layout of LiteRT."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.rewrites.sam_neck import SamNeck
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


def greatest(x: Tensor, side: int, stride: int) -> Tensor:
    """The greatest value of every square of a (B, H, W, C) map."""
    x = F.max_pool2d(x.permute(0, 3, 1, 2), side, stride)  # BHWC -> BCHW
    return x.permute(0, 2, 3, 1)  # BCHW -> BHWC


def normalise(x: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last axis without its affine; keeping that axis spares the reshapes of ``F.layer_norm``."""
    return scale(x - x.mean(-1, keepdim=True), eps)


def scale(centred: Tensor, eps: float) -> Tensor:
    """The part of LayerNorm that remains for values of mean zero."""
    return centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + eps)


def neck_of(neck: SamNeck) -> nn.Sequential:
    """SAM's neck: (1, S/16, S/16, C) to the embedding."""
    conv1, norm1, conv2, norm2 = neck
    return nn.Sequential(ConvNhwc(conv1), LayerNormNhwc(norm1), ConvNhwc(conv2), LayerNormNhwc(norm2))


class LayerNormNhwc(nn.Module):
    """LayerNorm over the last axis where no linear layer follows that could take the affine.

    In the neck a zero-padded 3x3 convolution follows, through which beta cannot go.

    Args:
        norm: its affine and epsilon.
        centred: the input's mean over the last axis is zero already, see ``rewrites.centre_outputs``.
        shifted: add beta; without it the layers that read the output need it worked into their weights.
    """

    def __init__(self, norm: nn.LayerNorm | LayerNorm2d, centred: bool = False, shifted: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().clone())
        self.bias = nn.Parameter(norm.bias.detach().clone())
        self.eps, self.centred, self.shifted = norm.eps, centred, shifted

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        x = (scale(x, self.eps) if self.centred else normalise(x, self.eps)) * self.weight
        return x + self.bias if self.shifted else x
