"""The three ways to train a student that the paper compares, at crop scale, on the same pictures and prompts.

* decoupled: the student's embedding against the teacher's, mean squared error. No decoder in the step.
* semi-coupled: the student's embedding through the teacher's frozen decoder, its masks against the teacher's masks.
* coupled: the same with the decoder trained too.

Mask losses are 20 focal + dice on token 0 against the teacher's thresholded answer to the same prompts, as in SAM.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from reference.mobile_sam import MobileSam
from reference.training.batches import PlaceBatch, place_batch
from reference.training.decode import Prompts, decode_crop
from reference.training.distill import embedding_loss, parameter_groups
from reference.training.losses import dice_loss, focal_loss, mask_iou
from reference.training.prompts import draw_prompts
from reference.training.run_state import cosine_rate, seed_step
from reference.training.scene_cache import SceneCache

METHODS = ("decoupled", "semi-coupled", "coupled")
OFFSET = (25, 25)  # of the 224-pixel crop's first cell in the 1024 frame: the middle
PROMPTS = 8


@dataclass(frozen=True)
class Trial:
    """One training run.

    Attributes:
        method: One of METHODS.
        learning_rate: Peak of the encoder's; the decoder's is a tenth, since it starts trained.
        seed: Of the student's weights and the batches.
        steps: Optimiser steps.
        batch_size: Crops a step.
        student: timm backbone.
    """

    method: str
    learning_rate: float
    seed: int
    steps: int
    batch_size: int = 8
    student: str = "tiny_vit_5m_224"


def teacher_answers(teacher: MobileSam, batch: PlaceBatch, prompts: Prompts) -> Tensor:
    """(B, P, h, w) boolean masks of the teacher's token 0."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return decode_crop(teacher, teacher.image_encoder(batch.images), prompts, OFFSET)[0][:, :, 0] > 0


def crops_and_prompts(cache: SceneCache, seed: list[int], size: int) -> tuple[PlaceBatch, Prompts]:
    """Crops and prompts that follow from the seed."""
    rng = np.random.default_rng(seed)
    batch = place_batch(cache, rng, size, places=1, crop=cache.images.shape[1])
    return batch, draw_prompts(rng, batch.ids, batch.things, PROMPTS, two_points=False).prompts


def start_student(trial: Trial, teacher: MobileSam) -> MobileSam:
    """A fresh encoder, the teacher's decoder."""
    torch.manual_seed(trial.seed)
    student = MobileSam(trial.student, teacher.image_size)
    own = {k: v for k, v in teacher.state_dict().items() if not k.startswith("image_encoder.")}
    student.load_state_dict({**student.state_dict(), **own})
    if trial.method != "coupled":
        student.mask_decoder.requires_grad_(False)
        student.prompt_encoder.requires_grad_(False)
    return student


def trial_loss(trial: Trial, student: MobileSam, teacher: MobileSam, batch: PlaceBatch, prompts: Prompts) -> Tensor:
    """The method's loss on one batch."""
    with torch.autocast("cpu", torch.bfloat16):
        embedding = student.image_encoder(batch.images)
        if trial.method == "decoupled":
            with torch.inference_mode():
                wanted = teacher.image_encoder(batch.images).float()
            return embedding_loss(embedding, wanted.clone(), None)
        logits = decode_crop(student, embedding, prompts, OFFSET)[0][:, :, 0].float()
    target = teacher_answers(teacher, batch, prompts).clone()
    return (20 * focal_loss(logits, target) + dice_loss(logits, target)).mean()


def train_trial(trial: Trial, teacher: MobileSam, cache: SceneCache) -> MobileSam:
    """Train a student; the same seed gives the same weights.

    Raises:
        FloatingPointError: at a NaN loss.
    """
    student = start_student(trial, teacher)
    decoder = [p for n, p in student.named_parameters() if p.requires_grad and not n.startswith("image_encoder.")]
    groups = [{**g, "share": 1.0} for g in parameter_groups(student.image_encoder, 0.05)]
    groups += [{"params": decoder, "weight_decay": 0.0, "share": 0.1}] if decoder else []
    optimiser = torch.optim.AdamW(groups, lr=trial.learning_rate)
    student.train()
    for step in range(trial.steps):
        seed_step(trial.seed, step, 0)
        rate = cosine_rate(step, trial.steps, trial.learning_rate, max(1, trial.steps // 50))
        for group in optimiser.param_groups:
            group["lr"] = rate * group["share"]
        batch, prompts = crops_and_prompts(cache, [1, trial.seed, step], trial.batch_size)
        loss = trial_loss(trial, student, teacher, batch, prompts)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {float(loss)} at step {step} of {trial}; leave out this learning rate")
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return student.eval()


@torch.inference_mode()
def agreement_with_teacher(student: MobileSam, teacher: MobileSam, cache: SceneCache, batches: int) -> float:
    """MIoU of token 0 with the teacher's on held-out crops; prompts that the teacher answers with nothing do not
    count.
    """
    found = []
    for n in range(batches):
        batch, prompts = crops_and_prompts(cache, [2, n], 8)
        truth = teacher_answers(teacher, batch, prompts)
        logits = decode_crop(student, student.image_encoder(batch.images), prompts, OFFSET)[0][:, :, 0]
        found.append(mask_iou(logits, truth)[truth.flatten(-2).any(-1)])
    return float(torch.cat(found).mean())
