"""Losses of masks and of predicted quality."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of thresholded (..., H, W) logits with boolean targets; an empty union counts 0."""
    found = logits > 0
    both = (found & target).flatten(-2).sum(-1)
    either = (found | target).flatten(-2).sum(-1)
    return both / either.clamp(min=1)


def balanced_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy in which mask and surroundings weigh half each, so that small masks do not die at a cold start.

    Returns:
        (...), one loss for each (..., H, W) mask.
    """
    truth = target.to(logits.dtype)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").flatten(-2)
    truth = truth.flatten(-2)
    inside, outside = truth.sum(-1), (1 - truth).sum(-1)
    return 0.5 * (loss * truth).sum(-1) / inside.clamp(min=1) + 0.5 * (loss * (1 - truth)).sum(-1) / outside.clamp(
        min=1
    )


def plain_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy, mean over the pixels of each (..., H, W) mask; returns (...)."""
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return loss.flatten(-2).mean(-1)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - 2|A n B| / (|A| + |B|) of soft (..., H, W) masks, smoothed by one pixel as in SAM; returns (...)."""
    found, truth = logits.sigmoid().flatten(-2), target.to(logits.dtype).flatten(-2)
    overlap = (found * truth).sum(-1)
    return 1 - (2 * overlap + 1) / (found.sum(-1) + truth.sum(-1) + 1)


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss (arXiv 1708.02002) without alpha, mean over the pixels of (..., H, W); SAM weighs it by 20."""
    truth = target.to(logits.dtype)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = logits.sigmoid()
    missed = probability + truth - 2 * probability * truth
    return (loss * missed**gamma).flatten(-2).mean(-1)


def mask_loss(logits: Tensor, target: Tensor, kind: Literal["balanced", "plain"]) -> Tensor:
    """Cross entropy + dice, one loss for each (..., H, W) mask; balanced for a cold start, else plain and twofold."""
    if kind == "balanced":
        return balanced_cross_entropy(logits, target) + dice_loss(logits, target)
    return 2 * plain_cross_entropy(logits, target) + 2 * dice_loss(logits, target)
