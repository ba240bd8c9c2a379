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
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reference.training.scenes import LEVELS, SceneGenerator

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
    folder: Path, count: int, image_size: int = 224, split: str = "train", first: int = 0, workers: int = 1
) -> SceneCache:
    """Paint `count` scenes into a folder; `cache.json` comes last, so a killed run leaves no half cache behind."""
    folder.mkdir(parents=True, exist_ok=True)
    side = image_size // MASK_STRIDE
    for name, shape in _shapes(count, image_size, side).items():
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, shape)  # type: ignore[no-untyped-call]
    bounds = np.linspace(0, count, workers + 1).astype(int)
    jobs = [(folder, split, image_size, first, int(a), int(b)) for a, b in pairwise(bounds)]
    if workers == 1:
        _paint_range(jobs[0])
    else:
        with ProcessPoolExecutor(workers) as pool:
            list(pool.map(_paint_range, jobs))
    facts = {"count": count, "image_size": image_size, "split": split, "first": first}
    (folder / "cache.json").write_text(json.dumps(facts, indent=2) + "\n")
    return open_cache(folder)


def _shapes(count: int, image_size: int, side: int) -> dict[str, tuple[int, ...]]:
    return {"images": (count, image_size, image_size, 3), "ids": (count, len(LEVELS), side, side), "things": (count,)}


def _paint_range(job: tuple[Path, str, int, int, int, int]) -> None:
    folder, split, image_size, first, start, stop = job
    generator = SceneGenerator(split, image_size)
    images, ids, things = (np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("images", "ids", "things"))
    for n in range(start, stop):
        scene = generator(first + n)
        images[n], ids[n], things[n] = scene.image, low_resolution_ids(scene.ids), scene.things
