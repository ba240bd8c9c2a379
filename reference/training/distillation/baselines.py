"""The three ways to train a student that the paper compares, and a fourth, at crop scale, on the same pictures.

* decoupled: the student's embedding against the teacher's, mean squared error. No decoder in the step.
* semi-coupled: the student's embedding through the teacher's frozen decoder, its masks against the teacher's masks.
* coupled: the same with the decoder trained too.
* in-the-loop, which is not the paper's: decoupled, and for the last LOOP_SHARE of the steps the teacher's answers, its
  prompts placed where both disagree (`prompts_in_the_loop.py`), with the decoder trained too.

Mask losses are balanced cross entropy + dice on token 0 against the teacher's thresholded answer to the same prompts.
SAM's own 20 focal + dice was tried first: from a fresh encoder both other methods ended by answering every prompt with
an empty mask (four runs, learning rates 3e-4 to 3e-3), which compares nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reference.image_encoder import ENCODER_STRIDE
from reference.mobile_sam import MobileSam
from reference.training.decode import CropPrompts, decode_crop
from reference.training.distillation.distill import embedding_loss, parameter_groups
from reference.training.distillation.prompts import draw_prompts
from reference.training.distillation.prompts_in_the_loop import loop_loss
from reference.training.losses import balanced_cross_entropy, dice_loss, mask_iou
from reference.training.pixels import normalise
from reference.training.run_state import cosine_rate, repeatable, seed_step
from reference.training.scenes.scene_cache import SceneCache

METHODS = ("decoupled", "semi-coupled", "coupled", "in-the-loop")
LOOP_SHARE = 0.25
LOOP_ROUNDS = 2
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


@dataclass(frozen=True)
class EmbeddedScenes:
    """Scenes with the teacher's embeddings, computed once as the paper does; pictures come as they are, unaugmented.

    Attributes:
        scenes: (N, S, S, 3) pictures and their ids.
        embeddings: (N, 256, S/16, S/16) float16, the teacher's.
    """

    scenes: SceneCache
    embeddings: NDArray[np.float16]


@dataclass(frozen=True)
class TaughtBatch:
    """Pictures, and what the teacher says about them.

    Attributes:
        images: (B, 3, S, S) normalised.
        embeddings: (B, 256, S/16, S/16), the teacher's.
        prompts: P on each picture.
        masks: (B, P, S/4, S/4) bool, the teacher's token 0; None where the method does not ask for it.
    """

    images: Tensor
    embeddings: Tensor
    prompts: CropPrompts
    masks: Tensor | None


def _frames(images: NDArray[np.uint8]) -> Tensor:
    """(B, S, S, 3) pictures to (B, 3, S, S), normalised."""
    return normalise(torch.tensor(images).permute(0, 3, 1, 2).float())


@torch.inference_mode()
def embed_scenes(teacher: MobileSam, scenes: SceneCache, path: Path) -> NDArray[np.float16]:
    """Write the teacher's embeddings of all scenes to a .npy file, whole or not at all, and map it."""
    if not path.exists():
        part, side = path.with_suffix(".part"), scenes.images.shape[1] // ENCODER_STRIDE
        shape = (len(scenes), teacher.prompt_encoder.embed_dim, side, side)
        written = np.lib.format.open_memmap(part, "w+", np.float16, shape)  # type: ignore[no-untyped-call]
        for start in range(0, len(scenes), 8):
            with torch.autocast("cpu", torch.bfloat16):
                found = teacher.image_encoder(_frames(scenes.images[start : start + 8]))
            written[start : start + 8] = found.float().half().numpy()
        written.flush()
        part.replace(path)
    mapped: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return mapped


@torch.no_grad()
def draw_batch(data: EmbeddedScenes, teacher: MobileSam, seed: list[int], size: int, with_masks: bool) -> TaughtBatch:
    """Pictures, prompts and answers that follow from the seed."""
    rng = np.random.default_rng(seed)
    scenes, chosen = data.scenes, np.random.default_rng([*seed, 1]).integers(0, len(data.scenes), size)
    ids, things = [scenes.ids[n] for n in chosen], [int(scenes.things[n]) for n in chosen]
    prompts = draw_prompts(rng, ids, things, PROMPTS, two_points=False).prompts
    embeddings = torch.from_numpy(data.embeddings[chosen].astype(np.float32))
    masks = None
    if with_masks:
        with torch.autocast("cpu", torch.bfloat16):
            masks = decode_crop(teacher, embeddings, prompts, OFFSET)[0][:, :, 0] > 0
    return TaughtBatch(_frames(scenes.images[chosen]), embeddings, prompts, masks)


def start_student(trial: Trial, teacher: MobileSam) -> MobileSam:
    """A fresh encoder, the teacher's decoder."""
    torch.manual_seed(trial.seed)
    student = MobileSam(trial.student, teacher.image_size)
    own = {k: v for k, v in teacher.state_dict().items() if not k.startswith("image_encoder.")}
    student.load_state_dict({**student.state_dict(), **own})
    if trial.method not in ("coupled", "in-the-loop"):
        student.mask_decoder.requires_grad_(False)
        student.prompt_encoder.requires_grad_(False)
    return student


def in_the_loop(trial: Trial, step: int) -> bool:
    """Whether the teacher's answers are learnt at this step, instead of its embeddings."""
    return trial.method == "in-the-loop" and step >= round(trial.steps * (1 - LOOP_SHARE))


def needs_masks(trial: Trial) -> bool:
    """Whether the teacher's masks are drawn with a batch; in the loop they follow from the prompts."""
    return trial.method in ("semi-coupled", "coupled")


def trial_loss(trial: Trial, student: MobileSam, teacher: MobileSam, batch: TaughtBatch, step: int) -> Tensor:
    """The method's loss on one batch; what is random in it follows from the trial's seed and the step."""
    with torch.autocast("cpu", torch.bfloat16):
        embedding = student.image_encoder(batch.images)
        if in_the_loop(trial, step):
            shown = 4 * embedding.shape[-2], 4 * embedding.shape[-1]
            rng = np.random.default_rng([4, trial.seed, step])
            both = (embedding, batch.embeddings)
            return loop_loss(student, teacher, both, batch.prompts, shown, LOOP_ROUNDS, rng, OFFSET)
        if not needs_masks(trial):
            return embedding_loss(embedding, batch.embeddings, None)
        logits = decode_crop(student, embedding, batch.prompts, OFFSET)[0][:, :, 0].float()
    assert batch.masks is not None
    return (balanced_cross_entropy(logits, batch.masks) + dice_loss(logits, batch.masks)).mean()


def train_trial(trial: Trial, teacher: MobileSam, data: EmbeddedScenes) -> MobileSam:
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
        batch = draw_batch(data, teacher, [1, trial.seed, step], trial.batch_size, needs_masks(trial))
        with repeatable(batch.images.device):
            loss = trial_loss(trial, student, teacher, batch, step)
            if not torch.isfinite(loss):
                raise FloatingPointError(
                    f"loss is {float(loss)} at step {step} of {trial}; leave out this learning rate"
                )
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return student.eval()


@torch.inference_mode()
def agreement_with_teacher(student: MobileSam, teacher: MobileSam, data: EmbeddedScenes, batches: int) -> float:
    """MIoU of token 0 with the teacher's on held-out crops; prompts without an answer of the teacher are left out."""
    found = []
    for n in range(batches):
        batch = draw_batch(data, teacher, [2, n], 8, with_masks=True)
        assert batch.masks is not None
        with torch.autocast("cpu", torch.bfloat16):
            logits = decode_crop(student, student.image_encoder(batch.images), batch.prompts, OFFSET)[0][:, :, 0]
        found.append(mask_iou(logits, batch.masks)[batch.masks.flatten(-2).any(-1)])
    return float(torch.cat(found).mean())
