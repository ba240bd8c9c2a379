"""Rewrite: a convolution and the BatchNorm behind it become one convolution.

What: W' = W * g / sqrt(v + eps), b' = beta - mean * g / sqrt(v + eps), computed in float64.
Why: every runtime would run them apart or fold them in float32.
Refuses: train mode (the statistics would be the batch's) and a BatchNorm without statistics or affine.
"""

import torch
from torch import Tensor, nn


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Make the equivalent convolution with bias; the modules passed in stay as they are.

    Raises:
        ValueError: if the BatchNorm cannot be folded.
    """
    return conv_with(conv, *folded(conv, norm))


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of that convolution in float64; see ``fold_batch_norm``."""
    scale, bias = scale_and_shift(norm)
    if conv.bias is not None:
        bias = bias + conv.bias.detach().double() * scale
    return conv.weight.detach().double() * scale[:, None, None, None], bias


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """What a BatchNorm multiplies a channel by and then adds to it, in float64.

    Raises:
        ValueError: if that is not constant.
    """
    if norm.training:
        raise ValueError("got a BatchNorm in train mode, expected eval mode; call .eval() before building a graph")
    if norm.running_mean is None or norm.running_var is None or norm.weight is None:
        raise ValueError("got a BatchNorm without running statistics or affine, expected both; it cannot be folded")
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.detach().double() - norm.running_mean.double() * scale


def conv_with(like: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution with the geometry of ``like`` and other (float64) weights, rounded once to float32."""
    conv = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        like.kernel_size,  # type: ignore[arg-type]  # PyTorch types these three as tuples of any length
        like.stride,  # type: ignore[arg-type]
        like.padding,  # type: ignore[arg-type]
        groups=like.groups,
        bias=bias is not None,
    )
    conv.weight.data = weight.detach().float().clone()
    if bias is not None:
        assert conv.bias is not None
        conv.bias.data = bias.detach().float().clone()
    return conv.requires_grad_(False)
