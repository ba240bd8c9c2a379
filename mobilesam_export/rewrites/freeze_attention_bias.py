"""Rewrite: the gathered relative position bias becomes a constant.

What: (heads, offsets) learned biases, gathered by the window's offset table, as one (heads, N, N) tensor.
Why: no gather in the graph; runtimes take it as an additive mask.
Refuses: train mode, where the bias still changes.
"""

from typing import cast

from timm.models.tiny_vit import Attention
from torch import Tensor


def freeze_attention_bias(attention: Attention) -> Tensor:
    """Gather the (heads, N, N) float32 bias of one attention from its weights as they are now.

    Raises:
        ValueError: in train mode.
    """
    if attention.training:
        raise ValueError("got an attention in train mode, expected eval mode; call .eval() before building a graph")
    offsets = cast(Tensor, attention.attention_bias_idxs)
    return attention.attention_biases[:, offsets].detach().float().clone()
