"""The paper's protocol: mIoU of a student's masks with its teacher's, on the same prompts.

    python -m reference.training evaluate --teacher facebook/sam-vit-huge --student student.safetensors --data photos/

Each photo gets random clicks in its picture area, and the tight box of the teacher's mask for each click. Both models
answer with token 0 (`multimask_output=False`), so that neither's choice among masks enters. Prompts to which the
teacher answers with an empty mask are left out and counted. The paper does not say how it places its points; ours are
uniform and follow from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference.checkpoint import load_mobile_sam
from reference.mobile_sam import MobileSam
from reference.training.distillation.embed import model_frame
from reference.training.distillation.image_source import Skipped, find_sources, read_source
from reference.training.distillation.prompts_in_the_loop import judge_of
from reference.training.distillation.teacher import Teacher, load_teacher
from reference.training.losses import mask_iou
from reference.transforms import resize_longest_side


@dataclass(frozen=True)
class EvaluateConfig:
    """What `evaluate` needs.

    Attributes:
        teacher: See `load_teacher`.
        student: Checkpoint.
        data: Tar files or a folder.
        image_size: Of both.
        prompts: Clicks a photo.
        limit: Photos at most.
        seed: Of the clicks.
        most_skipped: Share of the photos that may be unreadable.
    """

    teacher: str
    student: str
    data: Path
    image_size: int = 1024
    prompts: int = 16
    limit: int = 100
    seed: int = 0
    most_skipped: float = 0.1


def tight_boxes(masks: Tensor) -> Tensor:
    """(N, 4) XYXY boxes, in mask pixels, of (N, h, w) boolean masks that are not empty."""
    columns, rows = masks.any(1).float(), masks.any(2).float()
    right, bottom = columns.shape[1] - 1 - columns.flip(1).argmax(1), rows.shape[1] - 1 - rows.flip(1).argmax(1)
    return torch.stack([columns.argmax(1), rows.argmax(1), right, bottom], 1).float()


def agreement(
    teacher: Teacher, judge: MobileSam, student: MobileSam, picture: NDArray[np.uint8], clicks: Tensor
) -> dict[str, list[float]]:
    """IoUs of student and teacher on one resized picture.

    Args:
        teacher: Whose encoder is asked.
        judge: A `MobileSam` with the teacher's decoder.
        student: The student.
        picture: (H, W, 3), longest side S.
        clicks: (N, 2) x, y in the model frame.

    Returns:
        IoUs of the clicks and of the boxes that are not empty.
    """
    images = model_frame([picture], teacher.image_size)
    truth_embedding, embedding = teacher.embed(images), student.image_encoder(images)
    h, w = (-(-side // 4) for side in picture.shape[:2])  # low-resolution pixels that show the picture
    labels = torch.ones(len(clicks), 1)
    truth = judge.predict_masks(truth_embedding, (clicks[:, None], labels))[0][:, 0, :h, :w] > 0
    found = student.predict_masks(embedding, (clicks[:, None], labels))[0][:, 0, :h, :w]
    kept = truth.flatten(1).any(1)
    scores = {"point": mask_iou(found, truth)[kept].tolist(), "box": []}
    if kept.any():
        low = tight_boxes(truth[kept])
        boxes = torch.cat([low[:, :2] * 4, low[:, 2:] * 4 + 3], 1)
        truth = judge.predict_masks(truth_embedding, boxes=boxes)[0][:, 0, :h, :w] > 0
        found = student.predict_masks(embedding, boxes=boxes)[0][:, 0, :h, :w]
        kept = truth.flatten(1).any(1)
        scores["box"] = mask_iou(found, truth)[kept].tolist()
    return scores


@torch.inference_mode()
def evaluate(config: EvaluateConfig) -> dict[str, float | int]:
    """Compare on up to `limit` photos.

    Raises:
        ValueError: if there is nothing to compare on, or too much of it cannot be read.
    """
    teacher = load_teacher(config.teacher, config.image_size)
    student = load_mobile_sam(config.student, teacher.image_size)
    judge = judge_of(teacher)
    skipped, photos = Skipped(config.most_skipped), 0
    scores: dict[str, list[float]] = {"point": [], "box": []}
    records = (record for source in find_sources(config.data) for record in read_source(source, skipped))
    for record in islice(records, config.limit):
        skipped.check()
        picture = resize_longest_side(record.image, teacher.image_size)
        rng = np.random.default_rng([config.seed, photos])
        clicks = torch.from_numpy(rng.uniform(0, picture.shape[1::-1], (config.prompts, 2))).float()
        for kind, values in agreement(teacher, judge, student, picture, clicks).items():
            scores[kind] += values
        photos += 1
        if photos % 10 == 0:
            print(f"{photos} photos, point mIoU {np.mean(scores['point']):.4f}, {skipped}", flush=True)
    skipped.check(all_read=True)
    if not scores["point"]:
        raise ValueError(
            f"no prompt on the {photos} images in {config.data} gave the teacher a mask ({skipped}); give other photos"
        )
    empty = photos * config.prompts - len(scores["point"])
    means = {f"{kind}_miou": round(float(np.mean(values)), 4) for kind, values in scores.items() if values}
    facts = {"photos": photos, "skipped": len(skipped.names), "prompts": len(scores["point"])}
    return {**facts, "empty_teacher_masks": empty, **means}
