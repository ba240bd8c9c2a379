"""Rewrite: RepVGG's three branches and the BatchNorm behind their sum become one depthwise convolution.

What: bn(norm(W * x) + (w * x + b) + x), W of 3x3 and w of 1x1, is one 3x3 convolution: w and the identity are added to
the centre of the folded W, then the outer BatchNorm is folded in. All in float64, rounded once.
Why: three passes over the map and two sums become one pass; that is what the branches were made for.
Refuses: train mode, and the first RepViT's blocks, whose branches are built otherwise.
"""

from timm.models.repvit import RepVggDw
from torch import nn

from mobilesam_export.rewrites.fold_batch_norm import conv_with, folded, scale_and_shift


def merge_branches(mixer: RepVggDw) -> nn.Conv2d:
    """Make the equivalent convolution; the module passed in stays as it is.

    Raises:
        ValueError: if a BatchNorm cannot be folded, or the branches are not those.
    """
    if mixer.legacy:
        raise ValueError("got the branches of a RepViT of 2023 (repvit_m1, m2, m3), expected m0.9 to m2.3")
    conv, norm, pointwise, outer = (mixer.get_submodule(name) for name in ("conv.c", "conv.bn", "conv1", "bn"))
    assert isinstance(conv, nn.Conv2d) and isinstance(pointwise, nn.Conv2d) and pointwise.bias is not None
    assert isinstance(norm, nn.BatchNorm2d) and isinstance(outer, nn.BatchNorm2d)
    weight, bias = folded(conv, norm)
    centre = weight.shape[-1] // 2
    weight[:, :, centre, centre] += pointwise.weight.detach().double()[:, :, 0, 0] + 1
    scale, shift = scale_and_shift(outer)
    bias = (bias + pointwise.bias.detach().double()) * scale + shift
    return conv_with(conv, weight * scale[:, None, None, None], bias)
