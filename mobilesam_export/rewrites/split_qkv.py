"""Rewrite: TinyViT's interleaved qkv projection becomes [Q | K | V], scaled, with as few biases as softmax needs.

What: rows go from per-head [q k v] to all Q, all K, all V; 1/sqrt(d) moves into Q. The key bias adds the
same amount to every score of a query and cancels in the softmax. The value bias passes the attention
unchanged (its weights sum to one) and moves through the output projection into its bias.
Why: contiguous slices instead of strided ones; and K and V without bias are zero for a zero token, so
that windows may be padded *after* the projection, which then runs on real tokens only.
Refuses: widths that do not divide into heads, and values of another width than keys.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class SplitQkv:
    """float64 weights of one attention.

    Attributes:
        weight: (3C, C) rows [Q | K | V], Q scaled.
        query_bias: (C,), scaled.
        proj_weight: (C, C).
        proj_bias: (C,), with the value bias in it.
    """

    weight: Tensor
    query_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor


def split_qkv(weight: Tensor, bias: Tensor, proj: nn.Linear, heads: int) -> SplitQkv:
    """Rearrange the projection of one attention.

    Args:
        weight: (3C, C) interleaved per head [q k v], as in TinyViT.
        bias: (3C,).
        proj: the output projection.
        heads: number of heads.

    Raises:
        ValueError: if the widths do not fit.
    """
    channels = proj.in_features
    if weight.shape[0] != 3 * channels or channels % heads:
        raise ValueError(
            f"got a qkv projection of {weight.shape[0]} rows for {heads} heads and {channels} output channels, "
            f"expected {3 * channels} rows that divide into the heads"
        )
    head_dim = channels // heads
    per_head = weight.double().reshape(heads, 3, head_dim, -1).transpose(0, 1).reshape(3, channels, -1)
    biases = bias.double().reshape(heads, 3, head_dim).transpose(0, 1).reshape(3, channels)
    scale = head_dim**-0.5
    proj_weight = proj.weight.detach().double()
    return SplitQkv(
        weight=torch.cat([per_head[0] * scale, per_head[1], per_head[2]]),
        query_bias=biases[0] * scale,
        proj_weight=proj_weight,
        proj_bias=proj.bias.detach().double() + proj_weight @ biases[2],
    )
