"""Compute a teacher's embeddings once (decoupled distillation's first half).

    python -m reference.training embed --teacher facebook/sam-vit-huge --data sa1b/ --out embeddings/
    torchrun --nproc-per-node 8 -m reference.training embed ...       # tar files are dealt out to the processes

Killed at any moment, the same command makes the shards that are missing.
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

from reference.training.distillation.embedding_cache import finished_shards, write_shard
from reference.training.distillation.image_source import Record, Skipped, find_sources, read_source
from reference.training.distillation.teacher import Teacher, load_teacher
from reference.training.pixels import from_jpeg, normalise, to_jpeg
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
        most_skipped: Share of the images that may be unreadable; with more the command fails, at its end.
    """

    teacher: str
    data: Path
    out: Path
    image_size: int = 1024
    batch_size: int = 4
    shard_size: int = 256
    limit: int | None = None
    most_skipped: float = 0.1


def model_frame(images: list[NDArray[np.uint8]], image_size: int) -> Tensor:
    """Normalise and pad (H, W, 3) pictures, already resized, to (B, 3, S, S)."""
    frames = []
    for image in images:
        pixels = normalise(torch.from_numpy(image.copy()).permute(2, 0, 1).float())
        frames.append(functional.pad(pixels, (0, image_size - image.shape[1], 0, image_size - image.shape[0])))
    return torch.stack(frames)


def embed(config: EmbedConfig) -> Skipped:
    """Run; returns what was skipped.

    Raises:
        ValueError: nothing could be read; or, after all else is embedded, a tar was cut or too many images are damaged.
    """
    state = PartialState()
    teacher = load_teacher(config.teacher, config.image_size).to(state.device)
    sources, skipped = find_sources(config.data), Skipped(config.most_skipped)
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
    skipped.check(all_read=True)
    return skipped


def _embed_source(
    source: Path, prefix: str, teacher: Teacher, config: EmbedConfig, skipped: Skipped, device: torch.device
) -> Iterator[int]:
    shards = [s for s in finished_shards(config.out) if s.name.startswith(f"{prefix}-")]
    for shard in shards:
        if shard.teacher != teacher.id or shard.image_size != teacher.image_size:
            raise ValueError(
                f"{config.out} holds embeddings of {shard.teacher_name} at {shard.image_size}, got teacher "
                f"{teacher.name} at "
                f"{teacher.image_size}; give another --out"
            )
    done = {key for shard in shards for key in shard.keys}
    pending: list[Record] = []
    for count, record in enumerate(read_source(source, skipped)):
        if count == config.limit:
            break
        if record.key in done:
            continue
        pending.append(record)
        if len(pending) == config.shard_size:
            yield _write(pending, prefix, teacher, config, skipped, device)
            pending = []
    if pending:
        yield _write(pending, prefix, teacher, config, skipped, device)


def _write(
    records: list[Record],
    prefix: str,
    teacher: Teacher,
    config: EmbedConfig,
    skipped: Skipped,
    device: torch.device,
) -> int:
    """Embed records and write them as a shard, named after its last one; returns how many."""
    jpegs = [to_jpeg(resize_longest_side(record.image, teacher.image_size)) for record in records]
    pictures = [from_jpeg(data) for data in jpegs]
    found = []
    for at in range(0, len(pictures), config.batch_size):
        batch = model_frame(pictures[at : at + config.batch_size], teacher.image_size).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            found.append(teacher.embed(batch).float().cpu().half())
    embeddings = torch.cat(found)
    finite = embeddings.isfinite().flatten(1).all(1).tolist()
    for record, is_finite in zip(records, finite, strict=True):
        if not is_finite:
            skipped.add(record.source, record.key, "its embedding is not finite in float16")
    kept = [n for n, is_finite in enumerate(finite) if is_finite]
    if not kept:
        return 0
    facts = {
        "teacher": teacher.id,
        "teacher_name": teacher.name,
        "image_size": teacher.image_size,
        "keys": [records[n].key for n in kept],
        "sizes": [(pictures[n].shape[0], pictures[n].shape[1]) for n in kept],
        "records_read": records[-1].position,
    }
    name = f"{prefix}-{records[-1].position:08d}"
    write_shard(config.out, name, embeddings[kept], [jpegs[n] for n in kept], facts)
    return len(kept)
