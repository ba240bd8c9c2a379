"""How strongly the constructed decoder's marks of distance should count on a full frame.

Crops hold few things that look alike far from the prompt, so training on them leaves these marks too weak for a frame
of 1024 pixels: a click finds everything that resembles the object. Their one common factor is chosen by trying some on
full training scenes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reference.mobile_sam import MobileSam
from reference.training.batches import place_batch
from reference.training.channels import NEAR_MARKS, OUTSIDE
from reference.training.decode import decode_crop
from reference.training.losses import mask_iou
from reference.training.prompts import PromptBatch, draw_prompts
from reference.training.scene_cache import SceneCache

FACTORS = (0.85, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0)


@torch.no_grad()
def balance_marks(sam: MobileSam, cache: SceneCache, scenes: int = 24, prompts: int = 8) -> float:
    """Scale the marks of distance, in place, by the factor that gives training prompts the highest mean IoU.

    Args:
        sam: A model with a constructed decoder.
        cache: Training scenes; whole frames of them are used.
        scenes, prompts: How many, and clicks and boxes on each.

    Returns:
        The factor.
    """
    sam.eval()
    weight = _marks(sam)
    original = weight[list(NEAR_MARKS)].clone()
    scores = dict.fromkeys(FACTORS, 0.0)
    for embeddings, drawn in _prompted(sam, cache, scenes, prompts):
        for factor in FACTORS:
            weight[list(NEAR_MARKS)] = factor * original
            masks, _ = decode_crop(sam, embeddings, drawn.prompts, (0, 0))
            scores[factor] += float(mask_iou(masks[:, :, 0], drawn.meant).mean()) / scenes
    best = max(FACTORS, key=lambda factor: scores[factor])
    weight[list(NEAR_MARKS)] = best * original
    return best


def _marks(sam: MobileSam) -> Tensor:
    """A view of the upscaling's weights, (256, 2, 2), that carry the marks to the channel that darkens masks."""
    upscaling: Any = sam.mask_decoder.output_upscaling
    weight: Tensor = upscaling[0].weight
    return weight[:, int(weight[OUTSIDE].sum((1, 2)).argmax())]


def _prompted(sam: MobileSam, cache: SceneCache, scenes: int, prompts: int) -> Iterator[tuple[Tensor, PromptBatch]]:
    side = cache.images.shape[1]
    for n in range(scenes):
        rng = np.random.default_rng([2, n])
        batch = place_batch(cache, rng, 1, 1, side)
        drawn = draw_prompts(rng, batch.ids, batch.things, prompts, two_points=False)
        yield sam.image_encoder(batch.images), drawn
