"""Losses of one training batch through the decoder: first answers, and second rounds that get them back as a mask."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from reference.mobile_sam import MobileSam
from reference.training.batches import PlaceBatch
from reference.training.decode import decode_crop
from reference.training.losses import decoder_loss
from reference.training.phases import Feed, Phase
from reference.training.prompts import correct, draw_prompts, without_points

GRID = 64  # cells a side of the 1024 frame
TWO_POINTS = 0.25  # share of batches with three tokens a prompt
SECOND_ROUNDS = {"mask_only": 0.4, "repeated": 0.3, "corrected": 0.3}


def decoder_losses(
    sam: MobileSam, phase: Phase, feed: Feed, batch: PlaceBatch, embeddings: Tensor, rng: np.random.Generator
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """Yield the loss and the figures of the first round, and of a second one in `phase.second_rounds` of the batches.

    Args:
        sam: The model in training.
        phase: What is trained.
        feed: How many prompts an image.
        batch: Crops.
        embeddings: (B, 256, h, w) of those crops.
        rng: Draws prompts, the crop's place in the frame, and the kind of second round: the earlier mask alone, with
            the same prompt, or with a correcting point.
    """
    drawn = draw_prompts(rng, batch.ids, batch.things, feed.prompts, two_points=rng.random() < TWO_POINTS)
    room = GRID - feed.crop // 16
    offset = (int(rng.integers(room + 1)), int(rng.integers(room + 1)))
    with torch.autocast("cpu", torch.bfloat16):
        masks, quality = decode_crop(sam, embeddings, drawn.prompts, offset)
    loss, ious = decoder_loss(masks, quality, drawn.answers, drawn.meant, phase.mask_loss)
    lone = (drawn.prompts.labels == 1).any(-1) & (drawn.prompts.labels < 2).all(-1)
    figures = {"decoder": float(loss.detach())}
    for name, chosen in (("point_iou", lone), ("box_iou", ~lone)):
        if chosen.any():
            figures[name] = float(ious[..., 0][chosen].mean())
    yield loss, figures
    if rng.random() >= phase.second_rounds:
        return
    answer = masks[:, :, 0].detach().float()
    kind = str(rng.choice(list(SECOND_ROUNDS), p=list(SECOND_ROUNDS.values())))
    if kind == "mask_only":
        prompts = without_points(drawn.prompts)
    elif kind == "corrected":
        prompts = correct(rng, drawn.prompts, answer, drawn.meant)
    else:
        prompts = drawn.prompts
    with torch.autocast("cpu", torch.bfloat16):
        masks, quality = decode_crop(sam, embeddings, prompts, offset, answer.flatten(0, 1)[:, None])
    again = drawn.meant[:, :, None].expand_as(drawn.answers)
    loss, ious = decoder_loss(masks, quality, again, drawn.meant, phase.mask_loss)
    yield loss, {f"{kind}_iou": float(ious[..., 0].mean())}
