"""An image encoder of convolutions as a graph that every target shares; see ``folded_conv_net`` for its weights.

A target says how it writes a convolution and the little else that depends on where the channels lie.
"""

import copy
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobilesam_export.rewrites.absorb_affine import Cut
from mobilesam_export.rewrites.folded_conv_net import (
    FoldedConvNet,
    FoldedHgNetBlock,
    FoldedHgNetStem,
    FoldedResNetBlock,
    FoldedResNetStem,
    FoldedStage,
)
from mobilesam_export.rewrites.layouts import Layout
from mobilesam_export.rewrites.pointwise import pointwise
from mobilesam_export.rewrites.sam_neck import SamNeck
from mobilesam_export.rewrites.transposed_conv_by_phases import transposed_conv_by_phases
from reference.nano_sam import NanoSamNeck


class CutConv(nn.Module):
    """A convolution, and its outputs cut off; see ``Cut``."""

    def __init__(self, cut: Cut, layout: Layout) -> None:
        super().__init__()
        self.conv = layout.layer(cut.conv)
        self.floor, self.ceiling = cut.floor, cut.ceiling

    def forward(self, x: Tensor) -> Tensor:
        """Map a map to the next."""
        return cut_off(self.conv(x), self.floor, self.ceiling)


def cut_off(x: Tensor, floor: float | None, ceiling: float | None) -> Tensor:
    """Values no less and no greater; see ``Cut``."""
    if floor == 0 and ceiling is None:
        return F.relu(x)
    return x if floor is ceiling is None else x.clamp(floor, ceiling)


class Mix(nn.Module):
    """A 1x1 convolution of maps side by side; more than can be joined at a time are mixed in parts, which are added.

    Args:
        cut: the convolution.
        widths: channels of each map.
    """

    def __init__(self, cut: Cut, widths: Sequence[int], layout: Layout) -> None:
        super().__init__()
        self.floor, self.ceiling, self.layout = cut.floor, cut.ceiling, layout
        weights = cut.conv.weight.flatten(1).split(list(widths), dim=1)
        parts = [weights[at : at + layout.most_joined] for at in range(0, len(weights), layout.most_joined)]
        self.parts = nn.ModuleList(
            layout.layer(pointwise(torch.cat(part, 1), None if index else cut.conv.bias))
            for index, part in enumerate(parts)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map (1, C, H, W) maps to one, or channels last."""
        most = self.layout.most_joined
        first, *others = (
            part(self.layout.join(maps[index * most : (index + 1) * most])) for index, part in enumerate(self.parts)
        )
        return cut_off(sum(others, start=first), self.floor, self.ceiling)


def cut_convs(cuts: Sequence[Cut], layout: Layout) -> nn.Sequential:
    """Some, one after the other."""
    return nn.Sequential(*(CutConv(cut, layout) for cut in cuts))


class ResNetStem(nn.Module):
    """See ``FoldedResNetStem``."""

    def __init__(self, stem: FoldedResNetStem, layout: Layout) -> None:
        super().__init__()
        self.conv, self.layout = CutConv(stem.conv, layout), layout

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, 3, S, S) to (1, C, S/4, S/4), or channels last."""
        # Behind a ReLU zeros are what PyTorch pads with, no candidates; the last squares end with the map, S/2 is even.
        return self.layout.greatest(self.conv(x), 3, 2, before=1)


class HgNetStem(nn.Module):
    """See ``FoldedHgNetStem``."""

    def __init__(self, stem: FoldedHgNetStem, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.first, self.narrow, self.wide, self.third, self.last = (
            CutConv(cut, layout) for cut in (stem.first, stem.narrow, stem.wide, stem.third, stem.last)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, 3, S, S) to (1, C, S/4, S/4), or channels last."""
        x = self.first(x)
        wide = self.wide(self.layout.pad(self.narrow(self.layout.pad(x, 0, 1)), 0, 1))
        mixed: Tensor = self.last(self.third(self.layout.join([self.layout.greatest(x, 2, after=1), wide])))
        return mixed


class ResNetBlock(nn.Module):
    """See ``FoldedResNetBlock``."""

    def __init__(self, block: FoldedResNetBlock, layout: Layout) -> None:
        super().__init__()
        self.convs = cut_convs(block.convs, layout)
        self.project = None if block.project is None else layout.layer(block.project)

    def forward(self, x: Tensor) -> Tensor:
        """Map a map to the next."""
        return F.relu(self.convs(x) + (x if self.project is None else self.project(x)))


class HgNetBlock(nn.Module):
    """See ``FoldedHgNetBlock``."""

    def __init__(self, block: FoldedHgNetBlock, layout: Layout) -> None:
        super().__init__()
        self.layers = nn.ModuleList(cut_convs(layer, layout) for layer in block.layers)
        widths = [block.layers[0][0].conv.in_channels, *(layer[-1].conv.out_channels for layer in block.layers)]
        self.squeeze, self.excite = Mix(block.mix[0], widths, layout), CutConv(block.mix[1], layout)
        self.residual = block.residual

    def forward(self, x: Tensor) -> Tensor:
        """Map a map to one of the same grid."""
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        mixed: Tensor = self.excite(self.squeeze(maps))
        return mixed + x if self.residual else mixed


class Stage(nn.Module):
    """See ``FoldedStage``."""

    def __init__(self, stage: FoldedStage, layout: Layout) -> None:
        super().__init__()
        self.downsample = None if stage.downsample is None else layout.layer(stage.downsample)
        self.blocks = nn.Sequential(
            *(
                ResNetBlock(block, layout) if isinstance(block, FoldedResNetBlock) else HgNetBlock(block, layout)
                for block in stage.blocks
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map a map to the next."""
        mixed: Tensor = self.blocks(x if self.downsample is None else self.downsample(x))
        return mixed


class NanoSamNeckGraph(nn.Module):
    """NanoSAM's neck; see ``reference.nano_sam``."""

    pos_embedding: Tensor

    def __init__(self, neck: NanoSamNeck, layout: Layout) -> None:
        super().__init__()
        neck = copy.deepcopy(neck).requires_grad_(False)
        *convs, up = (layer for layer in neck.up_1 if not isinstance(layer, nn.GELU))
        self.convs = nn.ModuleList(layout.layer(cast(nn.Conv2d, conv)) for conv in convs)
        self.up = layout.layer(transposed_conv_by_phases(cast(nn.ConvTranspose2d, up), layout.channels_last))
        conv, _, last = neck.proj
        self.conv, self.last = layout.layer(cast(nn.Conv2d, conv)), layout.layer(cast(nn.Conv2d, last))
        places = neck.pos_embedding.detach().float().clone()
        self.register_buffer(
            "pos_embedding", places.permute(0, 2, 3, 1).contiguous() if layout.channels_last else places
        )
        self.layout = layout

    def forward(self, x: Tensor) -> Tensor:
        """Map the map at 1/32 to the embedding."""
        for conv in self.convs:
            x = F.gelu(conv(x))
        x = F.gelu(self.layout.interleave(self.up(self.layout.pad(x, 0, 1))))
        embeddings: Tensor = self.last(F.gelu(self.conv(x))) + self.pos_embedding
        return embeddings


def conv_net(
    folded: FoldedConvNet, layout: Layout, neck: Callable[[SamNeck], nn.Module]
) -> tuple[nn.Module, nn.Sequential, nn.Module]:
    """Stem, stages and neck.

    Args:
        neck: SAM's, as the target writes it.
    """
    if isinstance(folded.stem, FoldedResNetStem):
        stem: nn.Module = ResNetStem(folded.stem, layout)
    else:
        stem = HgNetStem(folded.stem, layout)
    stages = nn.Sequential(*(Stage(stage, layout) for stage in folded.stages))
    if isinstance(folded.neck, NanoSamNeck):
        return stem, stages, NanoSamNeckGraph(folded.neck, layout)
    return stem, stages, neck(folded.neck)
