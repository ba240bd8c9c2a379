"""Make the demonstration weights: paint, train through all phases, recalibrate, write the file.

python -m reference.training demonstrate --work DIR --objects FOLDER --device cuda
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from reference.checkpoint import save_checkpoint
from reference.training.demo_weights.painting import SUPPLIES, ScenePainters, Supply
from reference.training.demo_weights.phases import PHASES, Phase
from reference.training.demo_weights.recalibration import recalibrate, whole_frames
from reference.training.demo_weights.trainer import Trainer
from reference.training.scenes.scene_cache import SceneCache


class _Caches(Mapping[int, Sequence[SceneCache]]):
    """Both families' caches by size, waited for when first asked for."""

    def __init__(self, painters: ScenePainters) -> None:
        self.painters, self.found = painters, dict[int, Sequence[SceneCache]]()

    def __getitem__(self, size: int) -> Sequence[SceneCache]:
        if size not in self.found:
            print(f"waiting for the scenes of {size} pixels", flush=True)
            self.found[size] = self.painters.caches(size)
            print(f"scenes of {size} pixels: {' + '.join(str(len(cache)) for cache in self.found[size])}", flush=True)
        return self.found[size]

    def __iter__(self) -> Iterator[int]:
        return iter(supply.size for supply in self.painters.supplies)

    def __len__(self) -> int:
        return len(self.painters.supplies)


def demonstrate(
    work: Path,
    objects: Path,
    device: str = "cpu",
    name: str = "demonstration",
    phases: tuple[Phase, ...] = PHASES,
    supplies: Sequence[Supply] = SUPPLIES,
) -> Path:
    """Paint what is missing, train through all phases (or on from where it stopped), recalibrate, write the weights.

    Args:
        work: folder for scene caches (52 GB) and checkpoints.
        objects: folder of cut-outs.
        device: "cuda" takes half an hour on an H200; "cpu" weeks.
        name: of the run, a folder in `work`.
        phases: what to do.
        supplies: what to paint; the largest size is that of the frames for recalibration.

    Returns:
        The float16 safetensors file.
    """
    with ScenePainters(work, objects, supplies, os.cpu_count() or 1) as painters:
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(device == "cpu")  # elsewhere it costs much and does not reach its aim
        try:
            trainer = Trainer(work / name, _Caches(painters), phases, torch.device(device))
            trainer.resume()
            trainer.run()
        finally:
            torch.use_deterministic_algorithms(before)
    path = trainer.folder / "mobile_sam_demo.safetensors"
    sam = trainer.averaged()
    recalibrate(sam.image_encoder, whole_frames(painters.cutouts, max(supply.size for supply in supplies)))
    save_checkpoint(sam, path, torch.float16)
    return path
