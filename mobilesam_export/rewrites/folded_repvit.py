"""A RepViT's weights with every rewrite applied, independent of any target's layout; beside ``folded_encoder``."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from timm.models.repvit import ConvNorm, RepVit, RepViTBlock, RepVitDownsample, RepVitMlp, RepVitStage
from torch import nn

from mobilesam_export.errors import ExportError
from mobilesam_export.rewrites.fold_batch_norm import fold_batch_norm
from mobilesam_export.rewrites.fold_normalisation import fold_normalisation
from mobilesam_export.rewrites.merge_branches import merge_branches
from mobilesam_export.rewrites.sam_neck import SamNeck, sam_neck
from reference.mobile_sam import MobileSam


@dataclass(frozen=True)
class FoldedRepVitBlock:
    """One block: a depthwise convolution mixes pixels, then two of 1x1 mix channels beside the identity.

    Attributes:
        spatial: depthwise 3x3; at stride 2, or 1 in the last stage, it stands for a downsampling.
        squeeze, excite: 1x1 convolutions over the map's mean, ReLU between them, a sigmoid behind, whose outputs scale
            the channels. None in every other block.
        project: 1x1, to the next stage's channels; None but in a downsampling.
        expand, reduce: 1x1, GELU between them.
    """

    spatial: nn.Conv2d
    squeeze: nn.Conv2d | None
    excite: nn.Conv2d | None
    project: nn.Conv2d | None
    expand: nn.Conv2d
    reduce: nn.Conv2d


@dataclass(frozen=True)
class FoldedRepVit:
    """The whole image encoder of a RepViT-SAM.

    Attributes:
        image_size: S.
        stem: two convolutions, GELU between them; they expect pixels minus the mean.
        stages: four; each but the first begins with the downsampling, and each but the last ends with a block that timm
            counts to the next stage.
        neck: SAM's neck: two convolutions, a norm behind each; frozen copies.
    """

    image_size: int
    stem: tuple[nn.Conv2d, nn.Conv2d]
    stages: tuple[tuple[FoldedRepVitBlock, ...], ...]
    neck: SamNeck


def fold_repvit(sam: MobileSam) -> FoldedRepVit:
    """Apply every rewrite to a RepViT-SAM's image encoder; the model passed in stays as it is.

    Raises:
        ExportError: for another backbone.
        ValueError: from a rewrite that refuses, such as in train mode.
    """
    body = sam.image_encoder.body
    if not isinstance(body, RepVit):
        raise ExportError(f"got the backbone {sam.image_encoder.backbone}, expected a RepViT-SAM's")
    stages = [cast(RepVitStage, stage) for stage in body.stages]
    return FoldedRepVit(
        image_size=sam.image_size,
        stem=(fold_normalisation(_fold(body.stem.conv1)), _fold(body.stem.conv2)),
        stages=tuple(
            tuple(_blocks(stage, following)) for stage, following in zip(stages, [*stages[1:], None], strict=True)
        ),
        neck=sam_neck(sam.image_encoder),
    )


def _blocks(stage: RepVitStage, following: RepVitStage | None) -> Iterator[FoldedRepVitBlock]:
    """The blocks that compute on one stage's channels, the downsampling to them first."""
    if isinstance(down := stage.downsample, RepVitDownsample):
        expand, reduce = _mixer(down.ffn)
        yield FoldedRepVitBlock(
            _fold(down.spatial_downsample), None, None, _fold(down.channel_downsample), expand, reduce
        )
    for block in stage.blocks:
        yield _block(cast(RepViTBlock, block))
    if following is not None:
        assert isinstance(following.downsample, RepVitDownsample)
        yield _block(following.downsample.pre_block)


def _block(block: RepViTBlock) -> FoldedRepVitBlock:
    squeeze = excite = None
    if not isinstance(block.se, nn.Identity):
        squeeze, excite = (copy.deepcopy(layer).requires_grad_(False) for layer in (block.se.fc1, block.se.fc2))
    expand, reduce = _mixer(block.channel_mixer)
    return FoldedRepVitBlock(merge_branches(block.token_mixer), squeeze, excite, None, expand, reduce)


def _mixer(mixer: RepVitMlp) -> tuple[nn.Conv2d, nn.Conv2d]:
    return _fold(mixer.conv1), _fold(mixer.conv2)


def _fold(layer: ConvNorm) -> nn.Conv2d:
    conv, norm = layer.get_submodule("c"), layer.get_submodule("bn")
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return fold_batch_norm(conv, norm)
