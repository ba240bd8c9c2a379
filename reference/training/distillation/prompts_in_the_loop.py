"""Distillation of answers, with prompts in the loop: the next point falls where teacher and student disagree.

After an encoder's embeddings are close to its teacher's, what still differs shows only in masks. Random prompts mostly
ask what the student knows already, so each round adds one point to every prompt, from the pixels where the student's
answer is not the teacher's, and both answer again, each with its own earlier logits. Losses compare all four masks and
their predicted IoUs, in every round.

The idea is EdgeSAM's (prompts in the loop, arXiv 2312.06660) and TinySAM's (hard prompts, arXiv 2312.13789). The code
and the details are ours: masks are compared with the teacher's thresholded ones, by balanced cross entropy and dice, as
in `baselines.py`; the predicted IoU by its squared distance to the teacher's; padding asks and teaches nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reference.mobile_sam import MobileSam
from reference.training.decode import CropPrompts, decode_crop
from reference.training.distillation.prompts import pixel_of
from reference.training.distillation.teacher import Teacher, give_decoder
from reference.training.losses import balanced_cross_entropy, dice_loss
from reference.values import BACKGROUND_LABEL, FOREGROUND_LABEL


def judge_of(teacher: Teacher) -> MobileSam:
    """A model with the teacher's prompt encoder and mask decoder, frozen; its own image encoder is not used."""
    judge = MobileSam(image_size=teacher.image_size).eval().requires_grad_(False)
    give_decoder(judge, teacher.decoder, teacher.name)
    return judge


def loop_loss(
    student: MobileSam,
    judge: MobileSam,
    embeddings: tuple[Tensor, Tensor],
    prompts: CropPrompts,
    shown: tuple[int, int],
    rounds: int,
    rng: np.random.Generator,
    offset: tuple[int, int] = (0, 0),
) -> Tensor:
    """Mean loss of a student's answers over all rounds.

    Args:
        student: In training.
        judge: With the teacher's decoder, frozen.
        embeddings: (B, 256, h, w) of the student and of the teacher, of the same pictures.
        prompts: The first round, P on each picture.
        shown: (H, W) of the pictures in low-resolution pixels; what lies beyond is padding.
        rounds: The first prompt and the points that follow.
        rng: Places the points.
        offset: x, y of the first cell in the full grid, see `decode_crop`.
    """
    h, w = shown
    earlier: Tensor | None = None
    teachers_earlier: Tensor | None = None
    losses = []
    for n in range(rounds):
        with torch.no_grad():
            wanted, wanted_quality = decode_crop(judge, embeddings[1], prompts, offset, teachers_earlier)
        masks, quality = decode_crop(student, embeddings[0], prompts, offset, earlier)
        found, truth = masks.float()[..., :h, :w], wanted[..., :h, :w] > 0
        loss = (balanced_cross_entropy(found, truth) + dice_loss(found, truth)).mean()
        losses.append(loss + (quality.float() - wanted_quality.float()).square().mean())
        if n + 1 < rounds:
            prompts = ask_where_they_disagree(rng, prompts, found[:, :, 0].detach() > 0, truth[:, :, 0])
            earlier = masks[:, :, 0].detach().float().flatten(0, 1)[:, None]
            teachers_earlier = wanted[:, :, 0].float().flatten(0, 1)[:, None]
    return torch.stack(losses).mean()


def ask_where_they_disagree(
    rng: np.random.Generator, prompts: CropPrompts, found: Tensor, truth: Tensor
) -> CropPrompts:
    """Add a point to each prompt, in front, at a random pixel where the student's mask is not the teacher's.

    Where both agree the point falls into the mask, or anywhere if that is empty: it then asks whether they still agree.

    Args:
        rng: Places the points.
        prompts: P on each of B pictures.
        found: (B, P, h, w) bool, the student's.
        truth: (B, P, h, w) bool, the teacher's, which says whether the point is foreground.
    """
    wanted, wrong = truth.cpu().numpy(), (found != truth).cpu().numpy()
    places = np.empty((*wanted.shape[:2], 1, 2), np.float32)
    labels = np.empty((*wanted.shape[:2], 1), np.int64)
    for b, p in np.ndindex(*wanted.shape[:2]):
        choices = next((c for c in (wrong[b, p], wanted[b, p]) if c.any()), np.ones_like(wrong[b, p]))
        rows, columns = np.nonzero(choices)
        k = int(rng.integers(len(rows)))
        places[b, p, 0] = pixel_of(rng, rows[k : k + 1], columns[k : k + 1])
        labels[b, p, 0] = FOREGROUND_LABEL if wanted[b, p, rows[k], columns[k]] else BACKGROUND_LABEL
    device = prompts.coords.device
    return CropPrompts(
        torch.cat([torch.from_numpy(places).to(device), prompts.coords], 2),
        torch.cat([torch.from_numpy(labels).to(device), prompts.labels], 2),
    )
