"""Rewrite: a convolution and the BatchNorm behind it become one convolution.

What: W' = W * g / sqrt(v + eps), b' = beta - mean * g / sqrt(v + eps), computed in float64.
Why: every runtime would run them apart or fold them in float32.
Refuses: train mode (the statistics would be the batch's) and a BatchNorm without statistics or affine.
"""

import torch
from timm.models.tiny_vit import ConvNorm
from torch import Tensor, nn


def fold_batch_norm(conv_norm: ConvNorm) -> nn.Conv2d:
    """Make the equivalent convolution with bias; the module passed in stays as it is.

    Raises:
        ValueError: if the BatchNorm cannot be folded.
    """
    conv: nn.Conv2d = conv_norm.conv
    norm: nn.BatchNorm2d = conv_norm.bn
    if norm.training:
        raise ValueError("got a BatchNorm in train mode, expected eval mode; call .eval() before building a graph")
    if norm.running_mean is None or norm.running_var is None or norm.weight is None:
        raise ValueError("got a BatchNorm without running statistics or affine, expected both; it cannot be folded")
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    if conv.bias is not None:
        bias = bias + conv.bias.double() * scale
    return conv_with(conv, conv.weight.double() * scale[:, None, None, None], bias)


def conv_with(like: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution with the geometry of ``like`` and other (float64) weights, rounded once to float32."""
    conv = nn.Conv2d(
        like.in_channels,
        like.out_channels,
        like.kernel_size,  # type: ignore[arg-type]
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
