"""Decoupled distillation, MobileSAM's method: a student encoder learns a teacher's embeddings by mean squared error.

    python -m reference.training distill --embeddings embeddings/ --teacher facebook/sam-vit-huge --out student/
    accelerate launch --multi_gpu -m reference.training distill ...      # or torchrun, on one machine or many

No prompts, no decoder, no augmentation, as in the paper. The paper gives no optimiser and no rate. Ours: AdamW at 1e-3
for a batch of 8 (scaled by the square root of the batch, as suits Adam), weight decay 0.05 on matrices only, 2 %
warm-up because TinyViT diverges without one, then a cosine to zero because the number of steps is known beforehand.

`--ignore-padding` leaves out the cells that show only padding: SAM's embeddings there are constant noise that no
prompt reads, yet on a 4:3 photo they are a quarter of the loss. The paper does not say; the default is the plain mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from reference.checkpoint import save_checkpoint
from reference.image_encoder import DEFAULT_BACKBONE, ENCODER_STRIDE
from reference.mobile_sam import MobileSam
from reference.training.distillation.embed import model_frame
from reference.training.distillation.embedding_cache import EmbeddingCache
from reference.training.distillation.teacher import load_teacher
from reference.training.run_state import (
    LossLog,
    cosine_rate,
    load_state,
    repeatable,
    require_finite,
    save_state,
    seed_step,
)

SHARDS_AT_ONCE = 4  # pictures are shuffled within this many shards, so that disks read ahead


@dataclass(frozen=True)
class DistillConfig:
    """What `distill` needs.

    Attributes:
        embeddings: Folder that `embed` wrote.
        teacher: The same teacher; the student takes over its prompt encoder and mask decoder.
        out: Folder for checkpoints, losses and the student.
        student: timm backbone with a 1/16 map.
        pretrained: Start from timm's ImageNet weights (needs the network).
        epochs: Passes over the pictures.
        batch_size: Pictures a step, over all processes and accumulation.
        accumulate: Gradient accumulation.
        learning_rate: Peak.
        weight_decay: On matrices.
        ignore_padding: See the head of this file.
        precision: "bf16" or "no".
        seed: Of everything.
        workers: Loader processes.
        save_every: Steps between checkpoints.
        tensorboard: Write TensorBoard's events too, to OUT/tensorboard.
        stop_after: Stop at this step as if killed, for tests.
    """

    embeddings: Path
    teacher: str
    out: Path
    student: str = DEFAULT_BACKBONE
    pretrained: bool = False
    epochs: int = 8
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    ignore_padding: bool = False
    precision: str = "bf16"
    seed: int = 0
    workers: int = 0
    save_every: int = 500
    tensorboard: bool = False
    stop_after: int | None = None

    def what_matters(self) -> dict[str, object]:
        """The options that a resumed run must share."""
        free = {"embeddings", "out", "workers", "save_every", "tensorboard", "stop_after", "teacher"}
        return {name: value for name, value in asdict(self).items() if name not in free}


class Pairs(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Normalised pictures, embeddings, and the cells that show a picture."""

    def __init__(self, cache: EmbeddingCache) -> None:
        self.cache = cache

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        picture, embedding = self.cache[index]
        h, w = (-(-side // ENCODER_STRIDE) for side in picture.shape[:2])
        shown = torch.zeros(1, *embedding.shape[1:])
        shown[:, :h, :w] = 1
        return model_frame([picture], self.cache.image_size)[0], embedding, shown


def epoch_order(cache: EmbeddingCache, seed: int, epoch: int) -> NDArray[np.int64]:
    """Every picture once: shards in random order, pictures shuffled within a few shards."""
    rng = np.random.default_rng([seed, epoch])
    shards = rng.permutation(len(cache.shards))
    starts = np.concatenate([[0], np.cumsum([len(s.keys) for s in cache.shards])])
    blocks = []
    for at in range(0, len(shards), SHARDS_AT_ONCE):
        block = np.concatenate([np.arange(starts[s], starts[s + 1]) for s in shards[at : at + SHARDS_AT_ONCE]])
        blocks.append(rng.permutation(block))
    return np.concatenate(blocks, dtype=np.int64)


class Batches:
    """Indices of this process's micro-batches from a step on: the data position is the step alone.

    A shard is compared with its checksum before its first picture is given out, here, where an error is one line, and
    not in the loader's processes.
    """

    def __init__(
        self, cache: EmbeddingCache, config: DistillConfig, start: int, steps: int, process: int, processes: int
    ) -> None:
        self.cache, self.config, self.start, self.steps = cache, config, start, steps
        self.process, self.processes = process, processes
        self.each = config.batch_size // (config.accumulate * processes)
        self.per_epoch = len(cache) // config.batch_size

    def __len__(self) -> int:
        return (self.steps - self.start) * self.config.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, np.empty(0, np.int64)
        for step in range(self.start, self.steps):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                order = epoch_order(self.cache, self.config.seed, epoch)
            at = (step % self.per_epoch) * self.config.batch_size
            mine = order[at : at + self.config.batch_size].reshape(self.config.accumulate, self.processes, self.each)
            for micro in mine[:, self.process]:
                for shard in np.unique(self.cache.where[micro, 0]):
                    self.cache.require_whole(int(shard))
                yield micro.tolist()


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices and kernels; none on biases, norms and attention biases."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if p.ndim > 1 and "attention_biases" not in name]
    rest = [p for name, p in trained if p.ndim <= 1 or "attention_biases" in name]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]


def embedding_loss(found: Tensor, wanted: Tensor, shown: Tensor | None) -> Tensor:
    """Mean squared error of (B, 256, h, w) embeddings, over the shown cells if given."""
    error = (found.float() - wanted).square()
    if shown is None:
        return error.mean()
    return (error * shown).sum() / (shown.sum() * error.shape[1])


def distill(config: DistillConfig) -> Path:
    """Train a student; returns the path of the finished checkpoint."""
    known = EmbeddingCache(config.embeddings)
    teacher = load_teacher(config.teacher, known.image_size)
    cache = EmbeddingCache(config.embeddings, teacher.id, teacher.image_size)
    accelerator = Accelerator(
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulate,
        # Some timm backbones keep layers beyond the map.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    processes = accelerator.num_processes
    if config.batch_size % (config.accumulate * processes):
        raise ValueError(
            f"batch size {config.batch_size} does not divide among {processes} processes times {config.accumulate} "
            "accumulation steps"
        )
    steps = config.epochs * (len(cache) // config.batch_size)
    if not steps:
        raise ValueError(
            f"{config.embeddings} holds {len(cache)} pictures, fewer than one batch of {config.batch_size}; lower "
            "--batch-size"
        )
    if accelerator.is_main_process:
        print(
            f"{len(cache)} pictures in {len(cache.shards)} shards of {teacher.name} at {cache.image_size}", flush=True
        )
    config.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    sam = teacher.student(config.student, config.pretrained)
    encoder = sam.image_encoder
    optimiser = torch.optim.AdamW(parameter_groups(encoder, config.weight_decay), lr=config.learning_rate)
    facts = {**config.what_matters(), "teacher_id": teacher.id, "pictures": len(cache)}
    start = load_state(config.out / "last.pt", encoder, optimiser, facts)
    model, optimiser = accelerator.prepare(encoder, optimiser)
    batches = Batches(cache, config, start, steps, accelerator.process_index, processes)
    loader = DataLoader(Pairs(cache), batch_sampler=batches, num_workers=config.workers)
    log = LossLog(config.out, steps, config.batch_size, start, not accelerator.is_main_process, config.tensorboard)
    step, summed = start, torch.zeros((), device=accelerator.device)
    model.train()
    for micro, (pictures, wanted, shown) in enumerate(loader):
        if micro % config.accumulate == 0:
            if step == config.stop_after:
                return config.out / "last.pt"
            seed_step(config.seed, step, accelerator.process_index)
            rate = cosine_rate(step, steps, config.learning_rate, max(1, steps // 50))
            for group in optimiser.param_groups:
                group["lr"] = rate
        pictures, wanted, shown = (t.to(accelerator.device) for t in (pictures, wanted, shown))
        with accelerator.accumulate(model), repeatable(accelerator.device):
            with accelerator.autocast():
                found = model(pictures)
            loss = embedding_loss(found, wanted, shown if config.ignore_padding else None)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
        summed += loss.detach() / config.accumulate
        if (micro + 1) % config.accumulate == 0:
            step += 1
            value = float(accelerator.reduce(summed, "mean"))
            summed.zero_()
            require_finite("loss", value, step, config.out)
            require_finite("norm of the gradient", float(norm), step, config.out)
            log.add(step, value, rate, every=max(1, min(50, steps // 20)))
            if accelerator.is_main_process and (step % config.save_every == 0 or step == steps):
                save_state(config.out / "last.pt", accelerator.unwrap_model(model), optimiser.optimizer, facts, step)
    accelerator.wait_for_everyone()
    finished = config.out / "student.safetensors"
    if accelerator.is_main_process:
        log.plot()
        save_checkpoint(_with_encoder(sam, accelerator.unwrap_model(model)), finished)
    accelerator.end_training()
    return finished


def _with_encoder(sam: MobileSam, encoder: nn.Module) -> MobileSam:
    sam.image_encoder.load_state_dict(encoder.state_dict())
    return sam.cpu().eval()
