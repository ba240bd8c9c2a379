"""The optional second stage: fit the mask decoder to the student's own embeddings, on annotated images.

    python -m reference.training finetune --student student/student.safetensors --data sa1b/ --out finetuned/
    python -m reference.training finetune --student demo --data train2017/ --annotations instances_train2017.json ...

SAM's procedure at a smaller scale: a mask is prompted by a click or a box; then, round by round, by one more click
where the answer was wrong, with the answer's logits as mask input. Loss 20 focal + dice + squared error of the
predicted IoU. To a lone click the best of tokens 1 to 3 learns the mask; to anything else all tokens do. The encoder
stays frozen unless `--train-encoder`.

With `--prompts-in-the-loop --teacher T` the teacher's masks take the place of the annotated ones, which only say where
to ask first; see `prompts_in_the_loop.py`. Meant after `distill`, with `--train-encoder`.

AdamW at 1e-4, a tenth of `distill`'s rate, because the decoder starts trained; no weight decay, as little as is to be
forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from reference.checkpoint import load_mobile_sam, save_checkpoint, weights_sha256
from reference.mobile_sam import MobileSam
from reference.training.decode import CropPrompts, decode_crop
from reference.training.distillation.coco import annotations_by_photo
from reference.training.distillation.embed import model_frame
from reference.training.distillation.image_source import Skipped, find_sources, read_source
from reference.training.distillation.prompts import box_of, correct, pixel_of
from reference.training.distillation.prompts_in_the_loop import judge_of, loop_loss
from reference.training.distillation.teacher import Teacher, load_teacher
from reference.training.losses import dice_loss, focal_loss, mask_iou
from reference.training.run_state import (
    LossLog,
    cosine_rate,
    load_state,
    repeatable,
    require_finite,
    save_state,
    seed_step,
)
from reference.transforms import resize_longest_side
from reference.values import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND_LABEL, PADDING_LABEL

LARGEST_MASK = 0.9  # of the picture; SA-1B's masks of nearly everything teach little
SMALLEST_MASK = 4  # pixels of the low-resolution mask


@dataclass(frozen=True)
class FinetuneConfig:
    """What `finetune` needs.

    Attributes:
        student: Checkpoint to start from.
        data: SA-1B's tar files, or a folder of images with SA-1B's JSON files beside them.
        annotations: COCO's document for a folder of photos, in place of JSON files beside them.
        out: Folder for checkpoints, losses and the model.
        image_size: S.
        steps: Optimiser steps, one image of each process a step.
        masks: Prompted masks an image.
        rounds: Prompts a mask: the first and corrections.
        learning_rate: Peak.
        train_encoder: Train the image encoder too.
        prompts_in_the_loop: Learn the teacher's answers, and ask where they differ.
        teacher: For prompts in the loop; see `load_teacher`.
        precision: "bf16" or "no".
        seed: Of everything.
        save_every: Steps between checkpoints.
        tensorboard: Write TensorBoard's events too, to OUT/tensorboard.
        most_skipped: Share of the images that may be unreadable or without usable masks.
        stop_after: Stop at this step as if killed, for tests.
    """

    student: str
    data: Path
    out: Path
    annotations: Path | None = None
    image_size: int = 1024
    steps: int = 10_000
    masks: int = 16
    rounds: int = 3
    learning_rate: float = 1e-4
    train_encoder: bool = False
    prompts_in_the_loop: bool = False
    teacher: str | None = None
    precision: str = "bf16"
    seed: int = 0
    save_every: int = 500
    tensorboard: bool = False
    most_skipped: float = 0.1
    stop_after: int | None = None

    def what_matters(self) -> dict[str, object]:
        """The options that a resumed run must share."""
        free = {"data", "annotations", "out", "save_every", "tensorboard", "most_skipped", "stop_after", "student"}
        free |= {"teacher", "prompts_in_the_loop"}  # in their place the teacher's identity is compared
        return {name: value for name, value in asdict(self).items() if name not in free}


@dataclass(frozen=True)
class Example:
    """A resized picture and (N, S/4, S/4) masks of it in the model frame."""

    picture: NDArray[np.uint8]
    masks: NDArray[np.bool_]


def examples(config: FinetuneConfig, process: int, processes: int, start: int, skipped: Skipped) -> Iterator[Example]:
    """This process's examples from a step on, over and over.

    Raises:
        ValueError: if too many pictures cannot be used, see `Skipped`; never at a later pass.
    """
    sources, step, epoch = find_sources(config.data), 0, 0
    listed = None if config.annotations is None else annotations_by_photo(config.annotations)
    if listed is not None and sources != [config.data]:
        raise ValueError(f"--annotations goes with a folder of photos, and {config.data} has tar files; leave it out")
    while True:
        before = step
        for source in sources:
            for n, record in enumerate(read_source(source, skipped, listed is None, listed)):
                skipped.check()
                if n % processes != process:
                    continue
                masks = record.masks(config.masks, np.random.default_rng([config.seed, epoch, n]), skipped)
                low = [_low_resolution(mask, config.image_size) for mask in masks]
                low = [mask for mask in low if SMALLEST_MASK <= mask.sum() <= LARGEST_MASK * mask.size]
                if not low:
                    skipped.add(source, record.key, "no mask of a size to learn from")
                    continue
                step += 1
                if step > start:
                    yield Example(resize_longest_side(record.image, config.image_size), np.stack(low))
        if step == before:
            where = f"in {config.annotations}" if config.annotations else "in SA-1B's format beside it, as sa_N.json"
            raise ValueError(
                f"no image in {config.data} has masks {where} ({skipped}); COCO's document goes to --annotations"
            )
        skipped.check(all_read=True)
        skipped = Skipped(most=1)  # all is named by now
        epoch += 1


def _low_resolution(mask: NDArray[np.bool_], image_size: int) -> NDArray[np.bool_]:
    scale = image_size / max(mask.shape)
    h, w = (max(1, int(side * scale + 0.5)) for side in mask.shape)
    frame = torch.zeros(1, 1, image_size, image_size)
    frame[..., :h, :w] = functional.interpolate(torch.from_numpy(mask)[None, None].float(), (h, w), mode="area")
    low: NDArray[np.bool_] = (functional.avg_pool2d(frame, 4)[0, 0] > 0.5).numpy()
    return low


def first_prompts(rng: np.random.Generator, masks: NDArray[np.bool_]) -> CropPrompts:
    """A click and padding, or a box, for each of P masks: (1, P, 2, 2)."""
    coords, labels = [], []
    for mask in masks:
        if rng.random() < 0.5:
            coords.append([pixel_of(rng, *np.nonzero(mask)), (0.0, 0.0)])
            labels.append([FOREGROUND_LABEL, PADDING_LABEL])
        else:
            left, top, right, bottom = box_of(rng, mask, jitter=0.05)
            coords.append([(left, top), (right, bottom)])
            labels.append([BOX_TOP_LEFT, BOX_BOTTOM_RIGHT])
    return CropPrompts(torch.tensor(coords)[None].float(), torch.tensor(labels)[None])


def round_loss(masks: Tensor, quality: Tensor, truth: Tensor, lone: Tensor) -> Tensor:
    """Loss of one round.

    Args:
        masks: (1, P, 4, h, w) logits.
        quality: (1, P, 4) IoU predictions.
        truth: (1, P, h, w) bool.
        lone: (1, P) bool, prompts that are one click.
    """
    masks, four = masks.float(), truth[:, :, None].expand_as(masks)
    each = 20 * focal_loss(masks, four) + dice_loss(masks, four)
    best = each[..., 1:].min(-1).values
    mask_loss = torch.where(lone, 0.5 * (best + each[..., 0]), each.mean(-1))
    with torch.no_grad():
        ious = mask_iou(masks, four)
    return mask_loss.mean() + (quality.float() - ious).square().mean()


def image_loss(sam: MobileSam, embedding: Tensor, example: Example, rng: np.random.Generator, rounds: int) -> Tensor:
    """Mean loss over the rounds on one image."""
    truth = torch.from_numpy(example.masks)[None]
    prompts = first_prompts(rng, example.masks)
    answer: Tensor | None = None
    losses = []
    for n in range(rounds):
        lone = (prompts.labels == PADDING_LABEL).any(-1) & (n == 0)
        masks, quality = decode_crop(sam, embedding, prompts, (0, 0), answer)
        losses.append(round_loss(masks, quality, truth.to(masks.device), lone.to(masks.device)))
        shown = masks[:, :, 0].detach().float()
        if n + 1 < rounds:
            prompts = correct(rng, prompts, shown.cpu(), truth)
            answer = shown.flatten(0, 1)[:, None]
    return torch.stack(losses).mean()


def answer_loss(
    sam: MobileSam,
    judge: MobileSam,
    embeddings: tuple[Tensor, Tensor],
    example: Example,
    rng: np.random.Generator,
    rounds: int,
) -> Tensor:
    """Mean loss over the rounds on one image, against the teacher's answers; embeddings as in `loop_loss`."""
    shown = -(-example.picture.shape[0] // 4), -(-example.picture.shape[1] // 4)
    return loop_loss(sam, judge, embeddings, first_prompts(rng, example.masks), shown, rounds, rng)


class _Step(torch.nn.Module):
    """One forward pass as a module, so that the engine sees every gradient."""

    def __init__(self, sam: MobileSam, config: FinetuneConfig, teacher: Teacher | None) -> None:
        super().__init__()
        self.sam, self.config = sam, config
        self.taught = (teacher, judge_of(teacher)) if teacher else None  # a tuple: nothing of them is trained or saved

    def forward(self, images: Tensor, example: Example, rng: np.random.Generator) -> Tensor:
        with torch.set_grad_enabled(self.config.train_encoder):
            embedding = self.sam.image_encoder(images)
        if self.taught is None:
            return image_loss(self.sam, embedding, example, rng, self.config.rounds)
        teacher, judge = self.taught[0].to(images.device), self.taught[1].to(images.device)
        return answer_loss(self.sam, judge, (embedding, teacher.embed(images)), example, rng, self.config.rounds)


def finetune(config: FinetuneConfig) -> Path:
    """Train; returns the path of the finished checkpoint.

    Raises:
        ValueError: options that do not fit each other, or what `examples` and `load_state` say.
    """
    if config.prompts_in_the_loop != (config.teacher is not None):
        raise ValueError("--prompts-in-the-loop and --teacher go together; give both, or neither")
    accelerator = Accelerator(
        mixed_precision=config.precision,
        # Not every prompt uses every embedding.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    # In eval mode: BatchNorm keeps the statistics that `distill` left.
    sam = load_mobile_sam(config.student, config.image_size)
    teacher = load_teacher(config.teacher, config.image_size) if config.teacher else None
    if teacher and teacher.image_size != config.image_size:
        raise ValueError(f"{teacher.name} works at {teacher.image_size}; give --image-size {teacher.image_size}")
    facts = {**config.what_matters(), "started_from": weights_sha256(sam), "taught_by": teacher.id if teacher else None}
    sam.image_encoder.requires_grad_(config.train_encoder)
    config.out.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(
        [p for p in sam.parameters() if p.requires_grad], lr=config.learning_rate, weight_decay=0.0
    )
    start = load_state(config.out / "last.pt", sam, optimiser, facts)
    model, optimiser = accelerator.prepare(_Step(sam, config, teacher), optimiser)
    skipped = Skipped(config.most_skipped)
    stream = examples(config, accelerator.process_index, accelerator.num_processes, start, skipped)
    log = LossLog(
        config.out, config.steps, accelerator.num_processes, start, not accelerator.is_main_process, config.tensorboard
    )
    for step in range(start, config.steps):
        if step == config.stop_after:
            return config.out / "last.pt"
        seed_step(config.seed, step, accelerator.process_index)
        rate = cosine_rate(step, config.steps, config.learning_rate, max(1, config.steps // 50))
        for group in optimiser.param_groups:
            group["lr"] = rate
        example = next(stream)
        images = model_frame([example.picture], config.image_size).to(accelerator.device)
        rng = np.random.default_rng([config.seed, step, accelerator.process_index])
        with repeatable(accelerator.device):
            with accelerator.autocast():
                loss = model(images, example, rng)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        optimiser.zero_grad()
        value = float(accelerator.reduce(loss.detach(), "mean"))
        require_finite("loss", value, step + 1, config.out)
        require_finite("norm of the gradient", float(norm), step + 1, config.out)
        log.add(step + 1, value, rate, every=max(1, min(50, config.steps // 20)))
        if accelerator.is_main_process and ((step + 1) % config.save_every == 0 or step + 1 == config.steps):
            save_state(config.out / "last.pt", sam, optimiser.optimizer, facts, step + 1)
    accelerator.wait_for_everyone()
    finished = config.out / "finetuned.safetensors"
    if accelerator.is_main_process:
        log.plot()
        print(skipped)
        save_checkpoint(sam.cpu().eval(), finished)
    accelerator.end_training()
    return finished
