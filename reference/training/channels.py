"""Which of the embedding's channels the constructed decoder keeps for places and marks, and their frequencies.

See `construct.py` for what reads and writes them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from reference.mobile_sam import MobileSam
from reference.prompt_encoder import BACKGROUND_LABEL, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND_LABEL
from reference.training.lookup import POSITION_FREQUENCIES, position_channels

HALF = 128  # sines in channels 0..127, cosines in 128..255
FINE = list(range(18))
# of two fine frequencies that no head compares; what is added here with these signs has mean 0
UNREAD = ((0, 1.0), (1, -1.0), (HALF, 1.0), (HALF + 1, -1.0))
COARSE = list(range(18, 24))  # x at even places, y at odd ones
NEAR_X, NEAR_Y = 24, 25
SIDE_X, SIDE_Y = 26, 27
# sines of frequency 0: empty unless a learned embedding marks them
FOREGROUND, BACKGROUND, TOP_LEFT, BOTTOM_RIGHT = 28, 29, 30, 31
PRESENT = HALF + 28  # cosine of frequency 0: 1 for whatever has a place
OUTSIDE = BACKGROUND  # in the image's keys, which carry no labels
MARKED = (TOP_LEFT, BOTTOM_RIGHT, FOREGROUND)
MARKS = (HALF + 30, HALF + 31, HALF + 29)  # of those, in the tokens' values
NEAR_MARKS = (SIDE_X, SIDE_Y, HALF + SIDE_X, HALF + SIDE_Y)  # in the image's keys, after the sides have been compared
# LayerNorm moves all empty channels by the same amount, which depends on the content. Every row reads a difference to
# an empty channel.
KEY_ZERO, TOKEN_ZERO = FOREGROUND, BACKGROUND
SLOW = 0.12  # periods per half frame: monotonous across the frame
assert len(FINE) + len(COARSE) + 8 == POSITION_FREQUENCIES


def frequencies(generator: torch.Generator) -> Tensor:
    """The (2, 128) Gaussian matrix: chosen frequencies first, random ones after; exact in float16."""
    matrix = torch.randn(2, HALF, generator=generator)
    angle = torch.rand(9, generator=generator) * math.pi
    for i, size in enumerate((0.5, 0.8, 1.2, 1.8, 2.5, 3.3, 4.2, 5.2, 6.4)):
        c, s = size * math.cos(angle[i]), size * math.sin(angle[i])
        matrix[:, 2 * i] = torch.tensor([c, s])
        matrix[:, 2 * i + 1] = torch.tensor([-s, c])
    axes = [(COARSE[0], 0.2), (COARSE[2], 0.33), (COARSE[4], 0.45), (NEAR_X, 0.6), (SIDE_X, SLOW)]
    for i, size in axes:
        matrix[:, i], matrix[:, i + 1] = torch.tensor([size, 0.0]), torch.tensor([0.0, size])
    matrix[:, FOREGROUND : BOTTOM_RIGHT + 1] = 0
    return matrix.half().float()


def prepare(sam: MobileSam, seed: int = 0) -> None:
    """Set what has to be in place before the first stage: the frequencies, and neutral learned embeddings."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        encoder, empty = sam.prompt_encoder, position_channels(sam)
        matrix: Any = encoder.pe_layer.positional_encoding_gaussian_matrix
        matrix.copy_(frequencies(generator))
        for embedding in (
            *encoder.point_embeddings,
            encoder.not_a_point_embed,
            sam.mask_decoder.iou_token,
            sam.mask_decoder.mask_tokens,
        ):
            embedding.weight.copy_(0.3 * torch.randn(embedding.weight.shape, generator=generator))
            embedding.weight[:, empty] = 0
        encoder.no_mask_embed.weight.zero_()
        embeddings: Any = encoder.point_embeddings
        for label, channel in (
            (FOREGROUND_LABEL, FOREGROUND),
            (BACKGROUND_LABEL, BACKGROUND),
            (BOX_TOP_LEFT, TOP_LEFT),
            (BOX_BOTTOM_RIGHT, BOTTOM_RIGHT),
        ):
            embeddings[label].weight[0, channel] = 1.0
