"""Compute a teacher's embeddings once (decoupled distillation's first half).

    python -m reference.training embed --teacher facebook/sam-vit-huge --data sa1b/ --out embeddings/
    torchrun --nproc-per-node 8 -m reference.training embed ...       # tar files are dealt out to the processes

Killed at any moment, the same command continues after the last finished shard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from reference.mobile_sam import PIXEL_MEAN, PIXEL_STD
from reference.training.embedding_cache import finished_shards, from_jpeg, to_jpeg, write_shard
from reference.training.image_source import Record, Skipped, find_sources, read_source
from reference.training.teacher import Teacher, load_teacher
from reference.transforms import resize_longest_side


@dataclass(frozen=True)
class EmbedConfig:
    """What `embed` needs.

    Attributes:
        teacher: See `load_teacher`.
        data: Tar files or a folder.
        out: Folder of shards.
        image_size: Of a MobileSAM teacher.
        batch_size: Images at once.
        shard_size: Images a shard; 256 are 0.5 GB at 1024.
        limit: Most images of each source, or None.
    """

    teacher: str
    data: Path
    out: Path
    image_size: int = 1024
    batch_size: int = 4
    shard_size: int = 256
    limit: int | None = None


def model_frame(images: list[NDArray[np.uint8]], image_size: int) -> Tensor:
    """Normalise and pad (H, W, 3) pictures, already resized, to (B, 3, S, S)."""
    mean, std = torch.tensor(PIXEL_MEAN).view(3, 1, 1), torch.tensor(PIXEL_STD).view(3, 1, 1)
    frames = []
    for image in images:
        pixels = (torch.from_numpy(image.copy()).permute(2, 0, 1).float() - mean) / std
        frames.append(functional.pad(pixels, (0, image_size - image.shape[1], 0, image_size - image.shape[0])))
    return torch.stack(frames)


def embed(config: EmbedConfig) -> Skipped:
    """Run; returns what was skipped."""
    state = PartialState()
    teacher = load_teacher(config.teacher, config.image_size).to(state.device)
    sources, skipped = find_sources(config.data), Skipped()
    config.out.mkdir(parents=True, exist_ok=True)
    begun, images = time.monotonic(), 0
    for n in range(state.process_index, len(sources), state.num_processes):
        for count in _embed_source(sources[n], f"{n:06d}", teacher, config, skipped, state.device):
            images += count
            rate = images / (time.monotonic() - begun)
            print(
                f"process {state.process_index}: {sources[n].name}, {images} images, {rate:.2f} a second, {skipped}",
                flush=True,
            )
    state.wait_for_everyone()
    if state.is_main_process and not finished_shards(config.out):
        raise ValueError(f"no image in {config.data} could be embedded ({skipped}); nothing was written")
    return skipped


def _embed_source(
    source: Path, prefix: str, teacher: Teacher, config: EmbedConfig, skipped: Skipped, device: torch.device
) -> Iterator[int]:
    done = [s for s in finished_shards(config.out) if s.name.startswith(f"{prefix}-")]
    for shard in done:
        if shard.teacher != teacher.id or shard.image_size != teacher.image_size:
            raise ValueError(
                f"{config.out} holds embeddings of {shard.teacher_name} at {shard.image_size}, got teacher "
                f"{teacher.name} at "
                f"{teacher.image_size}; give another --out"
            )
    start = max((s.records_read for s in done), default=0)
    pending: list[Record] = []
    read = 0
    for record in read_source(source, skipped):
        read += 1
        if read <= start:
            continue
        if config.limit is not None and read > config.limit:
            break
        pending.append(record)
        if len(pending) == config.shard_size:
            yield _write(pending, f"{prefix}-{read:08d}", read, teacher, config, device)
            pending = []
    if pending:
        yield _write(pending, f"{prefix}-{read:08d}", read, teacher, config, device)


def _write(
    records: list[Record], name: str, read: int, teacher: Teacher, config: EmbedConfig, device: torch.device
) -> int:
    jpegs = [to_jpeg(resize_longest_side(record.image, teacher.image_size)) for record in records]
    pictures = [from_jpeg(data) for data in jpegs]
    found = []
    for at in range(0, len(pictures), config.batch_size):
        batch = model_frame(pictures[at : at + config.batch_size], teacher.image_size).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            found.append(teacher.embed(batch).float().cpu())
    facts = {
        "teacher": teacher.id,
        "teacher_name": teacher.name,
        "image_size": teacher.image_size,
        "keys": [record.key for record in records],
        "sizes": [(p.shape[0], p.shape[1]) for p in pictures],
        "records_read": read,
    }
    write_shard(config.out, name, torch.cat(found), jpegs, facts)
    return len(records)
