"""What the decoder's tokens look at: a loss that draws them to the object, and a penalty on large logits.

Both read the inputs of SAM's token-to-image attentions through hooks; the model itself is unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from reference.mobile_sam import MobileSam
from reference.two_way_transformer import Attention

LARGEST_LOGIT = 15.0  # half of what the finished weights may show on any photo


@contextmanager
def recorded_logits(sam: MobileSam, active: bool) -> Iterator[list[Tensor]]:
    """Collect the (B, heads, T, hw) attention logits of every token-to-image attention in a forward pass."""
    found: list[Tensor] = []

    def record(module: Attention, inputs: tuple[Tensor, Tensor, Tensor]) -> None:
        q = module._split_heads(module.q_proj(inputs[0]))
        k = module._split_heads(module.k_proj(inputs[1]))
        found.append((q @ k.transpose(-2, -1)).float() / math.sqrt(q.shape[-1]))

    hooks: list[Any] = []
    if active:
        transformer = sam.mask_decoder.transformer
        modules = [layer.cross_attn_token_to_image for layer in transformer.layers]  # type: ignore[union-attr]
        hooks = [m.register_forward_pre_hook(record) for m in (*modules, transformer.final_attn_token_to_image)]  # type: ignore[union-attr, arg-type]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def attention_loss(logits: list[Tensor], answers: Tensor, meant: Tensor) -> Tensor:
    """Minus the logarithm of the attention that falls on what a token is asked for, mean over layers and tokens.

    Args:
        logits: of `recorded_logits`, (B * P, heads, 5 + N, hw) each.
        answers: (B, P, 4, 4h, 4w) bool, of the mask tokens; all other tokens are drawn to what is meant.
        meant: (B, P, 4h, 4w) bool.
    """
    targets = torch.cat([meant[:, :, None], answers], 2).flatten(0, 1).float()
    targets = torch.nn.functional.avg_pool2d(targets, 4).flatten(2)  # (B * P, 5, hw)
    tokens = logits[0].shape[2]
    targets = torch.cat([targets, targets[:, :1].expand(-1, tokens - 5, -1)], 1)
    total = torch.zeros((), device=meant.device)
    for layer in logits:
        on_object = (layer.softmax(-1).mean(1) * targets).sum(-1)
        total = total - torch.log(on_object + 1e-3).mean()
    return total / len(logits)


def logit_penalty(logits: list[Tensor]) -> Tensor:
    """The mean square by which attention logits exceed `LARGEST_LOGIT`, from the row's mean."""
    excess = [
        ((layer - layer.mean(-1, keepdim=True)).abs() - LARGEST_LOGIT).clamp(min=0).square().mean() for layer in logits
    ]
    return torch.stack(excess).mean()
