"""Batches of scenes of both families, drawn by phase and step, augmented on the training device.

A batch is a function of its seed alone, so that a resumed run sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference.training.demo_weights.phases import Feed
from reference.training.pixels import normalise
from reference.training.scenes.scene_cache import MASK_STRIDE, SceneCache

PADDED = 0.4  # share of full frames that hold a portrait or landscape photo: zeros at the right or the bottom
ENLARGED_BATCHES, ENLARGED = 0.6, (0.35, 0.9)  # share of batches with photos enlarged to the frame, and from what
_AHEAD = 6  # batches that are gathered while the device computes


@dataclass(frozen=True)
class Batch:
    """Crops of scenes on the training device.

    Attributes:
        images: (B, 3, S, S) float32, normalised, zero where padded.
        ids: (B, 3, S/4, S/4) uint8, the part, object and group that each mask pixel shows; background where padded.
        things: (B,) first id of an object.
    """

    images: Tensor
    ids: Tensor
    things: Tensor


@dataclass(frozen=True)
class _Raw:
    images: Tensor
    ids: Tensor
    things: Tensor
    draws: dict[str, Tensor]


def _gather(feed: Feed, families: Sequence[SceneCache], seed: Sequence[int]) -> _Raw:
    rng = np.random.default_rng(list(seed))
    side = feed.crop // MASK_STRIDE
    images = np.empty((feed.images, feed.crop, feed.crop, 3), np.uint8)
    ids = np.empty((feed.images, 3, side, side), np.uint8)
    things = np.empty(feed.images, np.int64)
    for i in range(feed.images):
        cache = families[i % len(families)]
        n = int(rng.integers(len(cache)))
        most = cache.ids.shape[-1]
        cut = int(rng.integers(side, most + 1)) if feed.shrunk else side  # mask pixels of the scene
        y, x = (int(v) for v in rng.integers(0, most - cut + 1, 2))
        images[i] = _shrunk(cache.images[n, y * MASK_STRIDE :, x * MASK_STRIDE :], cut * MASK_STRIDE, feed.crop)
        centres = ((np.arange(side) + 0.5) * cut / side).astype(np.int64)
        ids[i] = cache.ids[n, :, y : y + cut, x : x + cut][:, centres[:, None], centres]
        things[i] = cache.things[n]
    b = feed.images
    visible = np.full((b, 2), side, np.int64)  # rows, columns of mask pixels that are photo
    if feed.crop >= 1024 or feed.own_frame:
        padded = rng.random(b) < PADDED
        visible[np.flatnonzero(padded), rng.integers(0, 2, np.count_nonzero(padded))] = rng.integers(
            side // 2, side, np.count_nonzero(padded)
        )
    draws = {
        "turns": torch.from_numpy(rng.random((b, 3)) < (0.5, 0.2, 0.2)),
        "order": torch.from_numpy(
            np.stack([rng.permutation(3) if rng.random() < 0.2 else np.arange(3) for _ in range(b)])
        ),
        "gain": torch.from_numpy(np.exp(rng.normal(0, 0.1, (b, 3)) + rng.normal(0, 0.15, (b, 1)))).float(),
        "offset": torch.from_numpy(rng.normal(0, 12, (b, 1))).float(),
        "grey": torch.from_numpy(np.where(rng.random(b) < 0.3, rng.random(b), 0.0)).float(),
        "visible": torch.from_numpy(visible),
        "enlarged": torch.tensor(rng.uniform(*ENLARGED) if rng.random() < ENLARGED_BATCHES else 1.0),
    }
    raw = _Raw(torch.from_numpy(images), torch.from_numpy(ids), torch.from_numpy(things), draws)
    if torch.cuda.is_available():
        return _Raw(
            raw.images.pin_memory(),
            raw.ids.pin_memory(),
            raw.things.pin_memory(),
            {name: value.pin_memory() for name, value in raw.draws.items()},
        )
    return raw


def _shrunk(picture: NDArray[np.uint8], side: int, to: int) -> NDArray[np.uint8]:
    """The top left square of a picture, (side, side, 3), at a smaller side."""
    square = picture[:side, :side]
    return square if side == to else np.asarray(cv2.resize(square, (to, to), interpolation=cv2.INTER_AREA), np.uint8)


def _enlarged(images: Tensor, factor: float) -> Tensor:
    """Every third of (B, 3, S, S) pictures as if enlarged from `factor` of their side; the others as they are."""
    images, side = images.clone(), images.shape[-1]
    small = torch.nn.functional.interpolate(
        images[::3], (int(side * factor),) * 2, mode="bilinear", align_corners=False, antialias=True
    )
    images[::3] = torch.nn.functional.interpolate(small, (side, side), mode="bilinear", align_corners=False)
    return images


def _turned(pictures: Tensor, turns: Tensor) -> Tensor:
    """(B, C, S, S) pictures mirrored, turned over and transposed where (B, 3) says so."""
    mirrored, over, transposed = turns[:, :, None, None, None].unbind(1)
    pictures = torch.where(mirrored, pictures.flip(-1), pictures)
    pictures = torch.where(over, pictures.flip(-2), pictures)
    return torch.where(transposed, pictures.transpose(-1, -2), pictures)


def _to_device(raw: _Raw, device: torch.device) -> Batch:
    images, ids, things = (t.to(device, non_blocking=True) for t in (raw.images, raw.ids, raw.things))
    draws = {name: value.to(device, non_blocking=True) for name, value in raw.draws.items()}
    images = images.permute(0, 3, 1, 2).float()  # BHWC -> BCHW
    images, ids = (_turned(t, draws["turns"]) for t in (images, ids))
    if (factor := float(raw.draws["enlarged"])) < 1:
        images = _enlarged(images, factor)
    images = images.gather(1, draws["order"][:, :, None, None].expand_as(images))
    grey = images.mean(1, keepdim=True)
    images = images + draws["grey"][:, None, None, None] * (grey - images)
    images = (images * draws["gain"][:, :, None, None] + draws["offset"][:, :, None, None]).clamp(0, 255)
    images = normalise(images)
    for axis in (0, 1):
        at = torch.arange(ids.shape[-1], device=device)
        shape = (1, 1, -1, 1) if axis == 0 else (1, 1, 1, -1)
        seen = at.view(shape) < draws["visible"][:, axis, None, None, None]
        ids = torch.where(seen, ids, 0)
        images = images * seen.repeat_interleave(MASK_STRIDE, 2 + axis)
    return Batch(images, ids, things)


def batches(
    steps: Iterator[tuple[Feed, Sequence[SceneCache], Sequence[int]]], device: torch.device, workers: int = 4
) -> Iterator[Batch]:
    """Yield one batch for each (feed, one cache a family, seed), gathered ahead by threads."""
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[_Raw]] = []
        for feed, families, seed in steps:
            waiting.append(pool.submit(_gather, feed, families, seed))
            if len(waiting) > _AHEAD:
                yield _to_device(waiting.pop(0).result(), device)
        while waiting:
            yield _to_device(waiting.pop(0).result(), device)
