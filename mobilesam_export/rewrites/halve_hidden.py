"""Rewrite: the hidden channels of two layers with something elementwise between them go in two halves.

What: expand, depthwise and project, or the two layers of an MLP, on one half of the hidden channels each; both outputs
are added up. The sums are the same but for their order.
Why: XNNPACK's float32 matrix product slows down where a row of its left side does not stay in the core's first cache
beside the weights: with 1280 channels it reached 80 to 150 GFLOP/s where others reach 190.
Refuses: nothing; the widths are even in every TinyViT.
"""

import copy

from torch import nn

Convolutions = tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]
LONG = 1024  # hidden channels of an MLP from which halves are faster: the last stage's 1280, not 512 or 640


def halves(convolutions: Convolutions) -> tuple[Convolutions, Convolutions]:
    """Expand, depthwise and project on one half of the hidden channels each; their outputs add up."""
    expand, depthwise, project = convolutions
    width = expand.out_channels // 2
    found = []
    for i in range(2):
        kept = slice(i * width, (i + 1) * width)
        half = tuple(copy.deepcopy(conv).requires_grad_(False) for conv in convolutions)
        for conv, whole in zip(half[:2], (expand, depthwise), strict=True):
            assert conv.bias is not None and whole.bias is not None
            conv.weight.data, conv.bias.data = whole.weight.data[kept].clone(), whole.bias.data[kept].clone()
            conv.out_channels = width
        half[1].groups = half[1].in_channels = half[2].in_channels = width
        half[2].weight.data = project.weight.data[:, kept].clone()
        if i:
            half[2].bias = None  # it is in the first half
        found.append((half[0], half[1], half[2]))
    return found[0], found[1]
