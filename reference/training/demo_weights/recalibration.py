"""BatchNorm's running statistics taken anew from whole training frames: the last step of making the weights.

While training, the statistics follow every batch, small frames' among them, and end as a mixture that no exported graph
will ever see at 1024 pixels. Here the finished weights see frames that are painted for it, and only statistics change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reference.training.pixels import normalise
from reference.training.scenes.cutout_scenes import CutoutSceneGenerator
from reference.training.scenes.scenes import SceneGenerator

FIRST_SCENE = 500_000  # of the training split, far beyond those that are trained on
BATCHES, SCENES_EACH = 5, 4  # a batch holds four scenes of each family: the encoder takes 3 GB at 1024


def whole_frames(cutouts: Path, image_size: int) -> Iterator[Tensor]:
    """Paint batches of whole frames, (8, 3, S, S) float32, normalised: four of silhouettes, then four of cut-outs.

    Args:
        cutouts: folder of prepared cut-outs, see `cutouts.py`.
        image_size: S, side in pixels.
    """
    families = SceneGenerator("train", image_size), CutoutSceneGenerator(cutouts, "train", image_size)
    for first in range(FIRST_SCENE, FIRST_SCENE + BATCHES * SCENES_EACH, SCENES_EACH):
        frames = [family(number).image for family in families for number in range(first, first + SCENES_EACH)]
        yield normalise(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float())  # BHWC -> BCHW


@torch.inference_mode()
def recalibrate(encoder: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running mean and variance of every BatchNorm by the mean over batches, each counting the same.

    Each layer sees what the layers before it make of a batch with that batch's own statistics, as in training.

    Args:
        encoder: in eval mode, in which it stays; everything but BatchNorm's statistics stays too.
        batches: (B, 3, S, S) float32, normalised, on the encoder's device; all of the same B.
    """
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's word for a mean over all batches instead of a moving average
        norm.train()
    for batch in batches:
        encoder(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
