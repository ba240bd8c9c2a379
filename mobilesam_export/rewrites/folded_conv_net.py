"""A ResNet's or an HGNetV2's weights with every rewrite applied, independent of any target's layout.

Beside ``folded_encoder`` and ``folded_repvit``: of a student, with SAM's neck, or of NanoSAM, with its own.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from timm.models.hgnet import ConvBNAct, HighPerfGpuBlock, HighPerfGpuStage, LightConvBNAct, StemV2
from timm.models.repvit import RepVit
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from mobilesam_export.errors import ExportError
from mobilesam_export.rewrites.absorb_affine import Cut, absorb_affine
from mobilesam_export.rewrites.fold_batch_norm import fold_batch_norm
from mobilesam_export.rewrites.fold_normalisation import fold_normalisation
from mobilesam_export.rewrites.sam_neck import SamNeck, sam_neck
from reference.image_encoder import ImageEncoder, TimmFeatures, timm_name
from reference.mobile_sam import MobileSam
from reference.nano_sam import HGNETS_V2, RESNETS, NanoSamNeck


@dataclass(frozen=True)
class FoldedResNetStem:
    """One convolution at stride 2, then the greatest of every 3x3 square at stride 2."""

    conv: Cut


@dataclass(frozen=True)
class FoldedHgNetStem:
    """Convolutions to a quarter of the image; two paths of the second and third, and the greatest of 2x2 squares."""

    first: Cut
    narrow: Cut
    wide: Cut
    third: Cut
    last: Cut


@dataclass(frozen=True)
class FoldedResNetBlock:
    """Convolutions beside the identity, or beside ``project``; a ReLU behind the sum."""

    convs: tuple[Cut, ...]
    project: nn.Conv2d | None


@dataclass(frozen=True)
class FoldedHgNetBlock:
    """Layers one after the other; what went into the first and came out of each is mixed, side by side, by two of 1x1.

    Attributes:
        layers: one convolution each, or a 1x1 and a depthwise one.
        mix: the two.
        residual: whether the block's input is added.
    """

    layers: tuple[tuple[Cut, ...], ...]
    mix: tuple[Cut, ...]
    residual: bool


@dataclass(frozen=True)
class FoldedStage:
    """The blocks on one grid; in front of them, perhaps, a depthwise convolution at stride 2."""

    downsample: nn.Conv2d | None
    blocks: tuple[FoldedResNetBlock | FoldedHgNetBlock, ...]


@dataclass(frozen=True)
class FoldedConvNet:
    """The whole image encoder.

    Attributes:
        image_size: S.
        stem: its first convolution expects pixels minus the mean.
        stages: to the map at 1/16, or at 1/32 for NanoSAM's neck.
        neck: SAM's neck, or the model's own if it is NanoSAM's.
    """

    image_size: int
    stem: FoldedResNetStem | FoldedHgNetStem
    stages: tuple[FoldedStage, ...]
    neck: SamNeck | NanoSamNeck


def is_conv_net(encoder: ImageEncoder) -> bool:
    """Whether an image encoder is one that ``fold_conv_net`` takes."""
    return isinstance(encoder.body, TimmFeatures) and _architecture(encoder) in {*RESNETS, *HGNETS_V2}


def has_conv_form(encoder: ImageEncoder) -> bool:
    """Whether an image encoder has a folded form of convolutions alone: this one, or ``fold_repvit``'s."""
    return isinstance(encoder.body, RepVit) or is_conv_net(encoder)


def _architecture(encoder: ImageEncoder) -> str:
    """timm's name without the tag of its weights."""
    return timm_name(encoder.backbone).partition(".")[0]


def fold_conv_net(sam: MobileSam) -> FoldedConvNet:
    """Apply every rewrite to an image encoder of convolutions; the model passed in stays as it is.

    Raises:
        ExportError: for another backbone.
        ValueError: from a rewrite that refuses, such as in train mode.
    """
    encoder = sam.image_encoder
    if not is_conv_net(encoder):
        raise ExportError(
            f"got the backbone {encoder.backbone}, expected a TinyViT, a RepViT-SAM, or one of "
            f"{', '.join(RESNETS)}, {', '.join(HGNETS_V2)}; other students have no folded form (the onnx target takes "
            "them as they are)"
        )
    parts = dict(cast(nn.Module, encoder.body.model).named_children())
    stem, stages = (_res_net if _architecture(encoder) in RESNETS else _hg_net)(parts)
    neck = encoder.neck if isinstance(encoder.neck, NanoSamNeck) else sam_neck(encoder)
    return FoldedConvNet(sam.image_size, stem, tuple(stages), neck)


def _res_net(parts: Mapping[str, nn.Module]) -> tuple[FoldedResNetStem, Iterator[FoldedStage]]:
    conv = fold_normalisation(_fold(parts["conv1"], parts["bn1"]))
    stages = (
        FoldedStage(None, tuple(_res_net_block(cast(BasicBlock | Bottleneck, block)) for block in _each(stage)))
        for name, stage in parts.items()
        if name.startswith("layer")
    )
    return FoldedResNetStem(Cut(conv)), stages


def _res_net_block(block: BasicBlock | Bottleneck) -> FoldedResNetBlock:
    numbers = "12" if isinstance(block, BasicBlock) else "123"
    convs = [_fold(block.get_submodule(f"conv{n}"), block.get_submodule(f"bn{n}")) for n in numbers]
    project = None if block.downsample is None else _fold(*_each(block.downsample))
    return FoldedResNetBlock((*map(Cut, convs[:-1]), Cut(convs[-1], None)), project)


def _hg_net(parts: Mapping[str, nn.Module]) -> tuple[FoldedHgNetStem, Iterator[FoldedStage]]:
    stem = parts["stem"]
    assert isinstance(stem, StemV2)
    first, *others = map(absorb_affine, (stem.stem1, stem.stem2a, stem.stem2b, stem.stem3, stem.stem4))
    first = Cut(fold_normalisation(first.conv), first.floor, first.ceiling)
    stages = (
        _hg_net_stage(cast(HighPerfGpuStage, stage)) for name, stage in parts.items() if name.startswith("stages_")
    )
    return FoldedHgNetStem(first, *others), stages


def _hg_net_stage(stage: HighPerfGpuStage) -> FoldedStage:
    downsample = None
    if isinstance(stage.downsample, ConvBNAct):
        cut = absorb_affine(stage.downsample)
        assert cut.floor is cut.ceiling is None
        downsample = cut.conv
    return FoldedStage(downsample, tuple(_hg_net_block(cast(HighPerfGpuBlock, block)) for block in stage.blocks))


def _hg_net_block(block: HighPerfGpuBlock) -> FoldedHgNetBlock:
    layers = tuple(
        (absorb_affine(layer.conv1), absorb_affine(layer.conv2))
        if isinstance(layer, LightConvBNAct)
        else (absorb_affine(cast(ConvBNAct, layer)),)
        for layer in block.layers
    )
    mix = tuple(absorb_affine(cast(ConvBNAct, layer)) for layer in _each(block.aggregation))
    return FoldedHgNetBlock(layers, mix, block.residual)


def _each(sequence: nn.Module | Tensor) -> Iterable[nn.Module]:
    assert isinstance(sequence, nn.Sequential)
    return sequence


def _fold(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return fold_batch_norm(conv, norm)
