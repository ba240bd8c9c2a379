"""Building blocks on (B, H, W, C), made of what XNNPACK takes over from ExecuTorch.

XNNPACK's partitioner has no LayerNorm and takes a mean over the rows and columns of (B, C, H, W) only. So a mean over
channels is a matrix product with a column of 1/C: its own kernel, and a hundredth of the work of the layers around it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.rewrites.linear import linear_with
from mobilesam_export.rewrites.sam_neck import SamNeck
from reference.layer_norm_2d import LayerNorm2d


def end_of_layout(x: Tensor) -> Tensor:
    """What ends a run of (B, C, H, W): to (B, H, W, C).

    ExecuTorch runs whatever follows a convolution or a pooling in its layout, up to the next reshape, and would take
    the transpose for a part of that: so a reshape there and back ends it. All of it goes when the file is written, see
    ``copies``.
    """
    x = x.permute(0, 2, 3, 1)  # BCHW -> BHWC
    batch, height, width, channels = x.shape
    return x.reshape(batch, height * width, channels).reshape(batch, height, width, channels)


def greatest(x: Tensor, side: int, stride: int) -> Tensor:
    """The greatest value of every square of a (B, H, W, C) map."""
    return end_of_layout(F.max_pool2d(x.permute(0, 3, 1, 2), side, stride))  # BHWC -> BCHW


class Conv(nn.Module):
    """A convolution on (B, H, W, C).

    Args:
        conv: weights as PyTorch stores them (out, in / groups, kh, kw).
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C_in) to (B, H', W', C_out)."""
        return end_of_layout(self.conv(x.permute(0, 3, 1, 2)))  # BHWC -> BCHW


def convolution(conv: nn.Conv2d) -> nn.Module:
    """A frozen convolution on (B, H, W, C): a linear layer if it is pointwise."""
    if conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.groups == 1:
        return linear_with(conv.weight.flatten(1), conv.bias)
    return Conv(conv)


class Normalise(nn.Module):
    """LayerNorm over the last axis without its affine.

    Args:
        channels: C.
        eps: of the LayerNorm.
        centred: the input's mean over the last axis is zero already.
    """

    mean: Tensor

    def __init__(self, channels: int, eps: float, centred: bool = False) -> None:
        super().__init__()
        self.eps, self.centred = eps, centred
        self.register_buffer("mean", torch.full((1, channels), 1 / channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        if not self.centred:
            x = x - F.linear(x, self.mean)
        return x * torch.rsqrt(F.linear(x * x, self.mean) + self.eps)


class LayerNorm(nn.Module):
    """LayerNorm over the last axis where no linear layer follows that could take the affine.

    Args:
        norm: its affine and epsilon.
        centred: the input's mean over the last axis is zero already, see ``rewrites.centre_outputs``.
        shifted: add beta; without it the layers that read the output need it worked into their weights.
    """

    def __init__(self, norm: nn.LayerNorm | LayerNorm2d, centred: bool = False, shifted: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.weight.detach().clone())
        self.bias = nn.Parameter(norm.bias.detach().clone())
        self.normalise = Normalise(len(norm.weight), norm.eps, centred)
        self.shifted = shifted

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        x = self.normalise(x) * self.weight
        return x + self.bias if self.shifted else x


def neck_of(neck: SamNeck) -> nn.Sequential:
    """SAM's neck: (1, S/16, S/16, C) to the embedding."""
    conv1, norm1, conv2, norm2 = neck
    return nn.Sequential(convolution(conv1), LayerNorm(norm1), convolution(conv2), LayerNorm(norm2))
