"""The stages of a RepViT as a graph that every target shares: convolutions, sums, and a scale from the map's mean.

A target says how a convolution and the mean are written in its layout; nothing else differs.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.rewrites.folded_repvit import FoldedRepVit, FoldedRepVitBlock

Layer = Callable[[nn.Conv2d], nn.Module]
Mean = Callable[[Tensor], Tensor]


class RepVitBlock(nn.Module):
    """One block; see ``FoldedRepVitBlock``.

    Args:
        layer: a convolution in the target's layout.
        mean: over rows and columns, which stay as axes of one.
    """

    def __init__(self, block: FoldedRepVitBlock, layer: Layer, mean: Mean) -> None:
        super().__init__()
        self.mean = mean
        self.spatial = layer(block.spatial)
        self.squeeze = None if block.squeeze is None else layer(block.squeeze)
        self.excite = None if block.excite is None else layer(block.excite)
        self.project = None if block.project is None else layer(block.project)
        self.expand, self.reduce = layer(block.expand), layer(block.reduce)

    def forward(self, x: Tensor) -> Tensor:
        """Map a map to one of the same size, or of half of it if this is a downsampling."""
        x = self.spatial(x)
        if self.squeeze is not None and self.excite is not None:
            x = x * torch.sigmoid(self.excite(F.relu(self.squeeze(self.mean(x)))))
        if self.project is not None:
            x = self.project(x)
        mixed: Tensor = x + self.reduce(F.gelu(self.expand(x)))
        return mixed


class RepVitStage(nn.Module):
    """The blocks on one number of channels."""

    def __init__(self, blocks: tuple[FoldedRepVitBlock, ...], layer: Layer, mean: Mean) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(RepVitBlock(block, layer, mean) for block in blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Map a map to the next."""
        mixed: Tensor = self.blocks(x)
        return mixed


def repvit_stages(folded: FoldedRepVit, layer: Layer, mean: Mean) -> nn.Sequential:
    """All four; from the stem's map, at 1/4 of the image, to the one at 1/16."""
    return nn.Sequential(*(RepVitStage(blocks, layer, mean) for blocks in folded.stages))
