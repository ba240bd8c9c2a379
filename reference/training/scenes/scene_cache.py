"""Scenes written to disk once, so that painting them does not compete with training.

A cache is a folder with `images.npy` (N, S, S, 3) uint8, `ids.npy` (N, 3, S/4, S/4) uint8 sampled at the centres of
the low-resolution mask's pixels, `things.npy` (N,) uint8, and `cache.json`. The arrays are read through memory maps.

    python -m reference.training scenes --cache DIR --count 16000
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reference.training.scenes.cutout_scenes import CutoutSceneGenerator
from reference.training.scenes.scenes import LEVELS, SceneGenerator

MASK_STRIDE = 4  # low-resolution masks have a quarter of the model frame's side


@dataclass(frozen=True)
class SceneCache:
    """Memory-mapped scenes; see the module's head for shapes."""

    images: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    things: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.things)


def low_resolution_ids(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Sample (..., H, W) ids at the centres of the 4x4 pixels that one mask logit covers."""
    return ids[..., MASK_STRIDE // 2 :: MASK_STRIDE, MASK_STRIDE // 2 :: MASK_STRIDE]


def open_cache(folder: Path) -> SceneCache:
    """Map a finished cache.

    Raises:
        ValueError: if the folder holds no finished cache.
    """
    if not (folder / "cache.json").exists():
        raise ValueError(
            f"no finished scene cache in {folder}; write one with: python -m reference.training scenes --cache {folder}"
        )
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("images", "ids", "things")}
    return SceneCache(**arrays)


def write_cache(
    folder: Path,
    count: int,
    image_size: int = 224,
    split: str = "train",
    first: int = 0,
    workers: int = 1,
    cutouts: Path | None = None,
) -> SceneCache:
    """Paint `count` scenes into a folder; `cache.json` comes last, so a killed run leaves no half cache behind.

    Args:
        folder: gets the arrays.
        count: scenes.
        image_size: side in pixels.
        split: "train" or "held-out".
        first: number of the first scene.
        workers: processes.
        cutouts: paint scenes of these prepared cut-outs instead of silhouettes.
    """
    facts = begin_cache(folder, count, image_size, split, first)
    bounds = np.linspace(0, count, workers + 1).astype(int)
    jobs = [(folder, split, image_size, first, int(a), int(b), cutouts) for a, b in pairwise(bounds)]
    if workers == 1:
        paint_range(jobs[0])
    else:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            list(pool.map(paint_range, jobs))
    finish_cache(folder, facts)
    return open_cache(folder)


def begin_cache(folder: Path, count: int, image_size: int, split: str, first: int) -> dict[str, object]:
    """Make the arrays of a cache that is to be painted in ranges; returns what `finish_cache` will note."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, shape in _shapes(count, image_size, image_size // MASK_STRIDE).items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, shape)  # type: ignore[no-untyped-call]
    return {"count": count, "image_size": image_size, "split": split, "first": first}


def finish_cache(folder: Path, facts: dict[str, object]) -> None:
    """Say that every scene of a cache is painted."""
    (folder / "cache.json").write_text(json.dumps(facts, indent=2) + "\n")


def _shapes(count: int, image_size: int, side: int) -> dict[str, tuple[int, ...]]:
    return {"images": (count, image_size, image_size, 3), "ids": (count, len(LEVELS), side, side), "things": (count,)}


def paint_range(job: tuple[Path, str, int, int, int, int, Path | None]) -> None:
    """Paint scenes start..stop of a begun cache: (folder, split, image size, first number, start, stop, cut-outs)."""
    folder, split, image_size, first, start, stop, cutouts = job
    generator = CutoutSceneGenerator(cutouts, split, image_size) if cutouts else SceneGenerator(split, image_size)
    images, ids, things = (np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("images", "ids", "things"))
    for n in range(start, stop):
        scene = generator(first + n)
        images[n], ids[n], things[n] = scene.image, low_resolution_ids(scene.ids), scene.things
