"""SAM's neck, which every image encoder but NanoSAM's has: two convolutions, a norm behind each."""

import copy
from typing import cast

from torch import nn

from reference.image_encoder import ImageEncoder
from reference.layer_norm_2d import LayerNorm2d

SamNeck = tuple[nn.Conv2d, LayerNorm2d, nn.Conv2d, LayerNorm2d]


def sam_neck(encoder: ImageEncoder) -> SamNeck:
    """Frozen copies of its layers."""
    neck = copy.deepcopy(encoder.neck).requires_grad_(False)
    assert isinstance(neck, nn.Sequential)
    return cast(SamNeck, tuple(neck))
