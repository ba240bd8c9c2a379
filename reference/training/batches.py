"""Pixels as SAM normalises them, and places to prompt, drawn from id maps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference.mobile_sam import PIXEL_MEAN, PIXEL_STD


def normalise(images: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) bytes to (B, 3, H, W), normalised as SAM does."""
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float()
    return (pixels - torch.tensor(PIXEL_MEAN).view(3, 1, 1)) / torch.tensor(PIXEL_STD).view(3, 1, 1)


def draw_places(rng: np.random.Generator, ids: NDArray[np.uint8], count: int, by_object: float) -> NDArray[np.int64]:
    """Draw mask pixels of one (3, h, w) id map as (count, 2) rows and columns.

    Args:
        rng: Source of randomness.
        ids: Part, object and group ids.
        count: How many.
        by_object: Share drawn evenly over objects first, so that small ones get their turn; the rest evenly over
            pixels.
    """
    objects = ids[1].ravel()
    flat = rng.integers(0, objects.size, count)
    order = np.argsort(objects, kind="stable")
    _, start, size = np.unique(objects[order], return_index=True, return_counts=True)
    keep = size >= 6
    if keep.any():
        start, size = start[keep], size[keep]
        pick = rng.integers(0, len(size), count)
        even = order[start[pick] + (rng.random(count) * size[pick]).astype(np.int64)]
        flat = np.where(rng.random(count) < by_object, even, flat)
    return np.stack(np.divmod(flat, ids.shape[-1]), 1)
