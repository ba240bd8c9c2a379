"""Rewrite: a learned scale and shift behind a ReLU go into the convolution before it.

What: s * relu(z) + b is max(s * z + b, b) if s is not negative, and min(s * z + b, b) if it is. So the convolution and
its BatchNorm take s and b along, in float64, and what is cut off moves from 0 to b.
Why: HGNetV2's smaller sizes have such a pair behind every ReLU: two passes over the map, where none is needed. Into the
next convolution b could not go, where that pads with zeros.
"""

from dataclasses import dataclass

from timm.models.hgnet import ConvBNAct, LearnableAffineBlock
from torch import nn

from mobilesam_export.rewrites.fold_batch_norm import conv_with, folded


@dataclass(frozen=True)
class Cut:
    """A convolution, and the values that its outputs are cut off at.

    Attributes:
        floor: the least; None for none.
        ceiling: the greatest; None for none.
    """

    conv: nn.Conv2d
    floor: float | None = 0.0
    ceiling: float | None = None


def absorb_affine(layer: ConvBNAct) -> Cut:
    """Fold a layer's BatchNorm and its learned scale and shift, if it has one; the layer stays as it is.

    Raises:
        ValueError: the BatchNorm cannot be folded.
    """
    conv, norm, affine = layer.get_submodule("conv"), layer.get_submodule("bn"), layer.get_submodule("lab")
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    weight, bias = folded(conv, norm)
    floor, ceiling = (0.0 if layer.use_act else None), None
    if isinstance(affine, LearnableAffineBlock):
        scale, shift = float(affine.scale.detach()), float(affine.bias.detach())
        weight, bias = weight * scale, bias * scale + shift
        floor, ceiling = (shift, None) if scale >= 0 else (None, shift)
    return Cut(conv_with(conv, weight, bias), floor, ceiling)
