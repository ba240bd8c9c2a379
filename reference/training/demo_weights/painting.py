"""Scene caches of both families, painted by processes of their own while training has begun on the small ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2

from reference.training.scenes.cutouts import prepare_cutouts
from reference.training.scenes.scene_cache import SceneCache, begin_cache, finish_cache, open_cache, paint_range


@dataclass(frozen=True)
class Supply:
    """How many scenes of one size each family gets.

    Attributes:
        size: side in pixels.
        count: scenes a family.
        chunk: scenes that one process paints at a time.
    """

    size: int
    count: int
    chunk: int


SUPPLIES = (Supply(224, 3000, 100), Supply(1024, 7500, 20))


def _as_worker() -> None:
    cv2.setNumThreads(1)
    os.nice(5)


class ScenePainters:
    """Paint what a work folder lacks, smallest scenes first; a context manager that ends its processes.

    Args:
        work: gets one folder a family and size.
        objects: folder of cut-outs.
        supplies: what to paint.
        workers: processes.

    Attributes:
        cutouts: folder of the prepared cut-outs.
    """

    def __init__(self, work: Path, objects: Path, supplies: Sequence[Supply] = SUPPLIES, workers: int = 1) -> None:
        self.work, self.supplies = work, supplies
        self.cutouts = work / "cutouts"
        if not (self.cutouts / "cutouts.json").exists():
            prepare_cutouts(objects, self.cutouts, workers)
        # Spawned: a fork of a process in which OpenCV has had threads waits for them for ever.
        self.pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_as_worker)
        self.waiting: dict[Path, list[Future[None]]] = {}
        self.facts: dict[Path, dict[str, object]] = {}
        for supply in supplies:
            for family, cutouts in (("leaves", None), ("cutouts", self.cutouts)):
                folder = work / f"{family}{supply.size}"
                if (folder / "cache.json").exists():
                    continue
                self.facts[folder] = begin_cache(folder, supply.count, supply.size, "train", 0)
                starts = range(0, supply.count, supply.chunk)
                self.waiting[folder] = [
                    self.pool.submit(
                        paint_range,
                        (folder, "train", supply.size, 0, a, min(a + supply.chunk, supply.count), cutouts),
                    )
                    for a in starts
                ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def caches(self, size: int) -> tuple[SceneCache, SceneCache]:
        """Both families' caches of one size, as soon as they are finished."""
        found = []
        for family in ("leaves", "cutouts"):
            folder = self.work / f"{family}{size}"
            for future in self.waiting.pop(folder, ()):
                future.result()
            if folder in self.facts:
                finish_cache(folder, self.facts.pop(folder))
            found.append(open_cache(folder))
        return found[0], found[1]
