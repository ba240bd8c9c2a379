"""Start the two-way transformer as a look-up instead of at random.

A random decoder has to discover, from mask losses alone, that a point's positional encoding should fetch the embedding
at that place and that the masks are what resembles it. Those steps are known, so they are written into the weights,
and training refines them:

1. The embedding leaves 64 channels empty (`lookup.position_channels`). Their frequencies in the positional encoding
   are chosen: fine ones for places, coarse ones for a box's middle (the mean of two corners' encodings peaks there
   while frequency times width stays below a half), one slow one per axis for half-planes, one for distances, and
   constants (frequency 0) in which learned embeddings mark the kind of prompt.
2. First self-attention: every token copies the encoding of foreground points (fine and coarse) or of box corners
    (coarse). Without either a constant keeps the tokens from being nothing.
3. Token to image: each head compares fine and coarse frequencies with a gain, so it reads the embedding at the
    prompted place.
4. First image to token: a cell beyond a box's side attends to that corner and is marked outside; marked cells are not
   looked up and, through a reserved channel of the upscaling, never in the mask. Four more heads mark how near a cell
   is to a foreground point; through the same channel, what is far counts less. Without this a click on a full frame
   finds everything that looks alike.
5. Everything else starts as an identity: zero output projections, LayerNorms at one and zero.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from reference.mask_decoder import MaskDecoder
from reference.mobile_sam import MobileSam
from reference.training.channels import (
    BOTTOM_RIGHT,
    COARSE,
    FINE,
    FOREGROUND,
    HALF,
    KEY_ZERO,
    MARKED,
    MARKS,
    NEAR_MARKS,
    NEAR_X,
    NEAR_Y,
    OUTSIDE,
    PRESENT,
    SIDE_X,
    SIDE_Y,
    TOKEN_ZERO,
    TOP_LEFT,
    UNREAD,
)
from reference.training.lookup import LEVEL_TOKENS, position_channels
from reference.two_way_transformer import Attention

FINE_GAIN, COARSE_GAIN, SIDE_GAIN = 4.0, 25.0, 90.0  # attention logits at the peak
NEAR_GAINS = (36.0, 6.6, 0.0)  # cells within about 80, 180 and 450 pixels of a point; a fourth head marks all of them
FAR_WEIGHT = 1.4  # of each distance, against 4 for outside a box; 0.1 to 4 were tried on training scenes at 1024
NEAR_PEAK = 6.0
# indices into FINE: one coarse pair, one medium, one fine, so that no far place looks like the prompted one
HEADS_FINE = (
    (2, 8, 9, 14, 15),
    (4, 10, 11, 16, 17),
    (6, 8, 9, 14, 15),
    (3, 12, 13, 16, 17),
    (5, 10, 11, 14, 15),
    (7, 12, 13, 14, 15),
    (2, 8, 9, 16, 17),
    (4, 10, 11, 14, 15),
)
LABEL_GAIN = 12.0
# Added to every token after the first self-attention. That attention replaces the tokens, so that without a point or
# box nothing would be left but traces of 1e-2, which the LayerNorm behind it would blow up into marks: a mask alone
# was answered with noise, and float16 with other noise. With this the tokens stay empty. Its norm is
# a quarter of a prompt's.
RESTING = 0.5


@torch.no_grad()
def construct(sam: MobileSam, found: Tensor) -> None:
    """Write the look-up into the decoder of a model that has been through the first stage.

    Args:
        sam: The model, changed in place.
        found: (N, 256) looked-up embeddings, for the directions that the attention's 128 value channels should carry.
    """
    decoder = sam.mask_decoder
    empty = position_channels(sam)
    neck_norm: Any = sam.image_encoder.neck[3]
    neck_norm.weight[empty] = 0
    neck_norm.bias[empty] = 0
    carried = _main_directions(found * ~empty, decoder.transformer.final_attn_token_to_image.v_proj.out_features)
    layers: Any = decoder.transformer.layers
    first, second = layers
    for block in (first, second):
        for norm in (block.norm1, block.norm2, block.norm3, block.norm4):
            nn.init.ones_(norm.weight)
            nn.init.zeros_(norm.bias)
        _silence(block.mlp.lin2)
    _copy_prompt(first.self_attn)
    _silence(second.self_attn.out_proj)
    # The copied encoding's scale after the LayerNorms before each attention was measured.
    for attention, query_scale, strength in (
        (first.cross_attn_token_to_image, 3.5, 0.7),
        (second.cross_attn_token_to_image, 3.0, 0.7),
        (decoder.transformer.final_attn_token_to_image, 2.3, 4.0),
    ):
        _look_up(attention, carried, query_scale, strength)
    _mark_places(first.cross_attn_image_to_token)
    _silence(second.cross_attn_image_to_token.out_proj)
    nn.init.ones_(decoder.transformer.norm_final_attn.weight)
    nn.init.zeros_(decoder.transformer.norm_final_attn.bias)
    _mask_outside(decoder, empty)
    mask_downscaling: Any = sam.prompt_encoder.mask_downscaling
    _silence(mask_downscaling[-1])


def _main_directions(found: Tensor, count: int) -> Tensor:
    """(count, 256) orthonormal directions, dealt out so that every head gets strong and weak ones."""
    directions: Tensor = torch.linalg.svd(found, full_matrices=False)[2]
    return directions[:count].reshape(-1, 8, directions.shape[1]).transpose(0, 1).reshape(count, -1)


def _silence(linear: nn.Linear | nn.Conv2d) -> None:
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def _clear(attention: Attention) -> None:
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj):
        _silence(linear)


def _pairs(frequencies_: list[int]) -> list[int]:
    return [c for f in frequencies_ for c in (f, HALF + f)]


def _copy_prompt(attention: Attention) -> None:
    """First self-attention: heads 0 and 1 copy foreground points, 2 box corners, 3 marks points and corners
    themselves.
    """
    _clear(attention)
    width = attention.q_proj.out_features // attention.heads
    # The first self-attention adds no encoding, but the tokens are their own: q, k and v all read the prompt
    # embeddings.
    gain = math.sqrt(width) * LABEL_GAIN
    copied = [_pairs(FINE[:9]) + _pairs(COARSE[:3]), _pairs(FINE[9:]) + _pairs(COARSE[3:]), _pairs(COARSE)]
    for head, channels in enumerate(copied):
        base = head * width
        attention.q_proj.bias[base] = 1.0
        for channel in (FOREGROUND,) if head < 2 else (TOP_LEFT, BOTTOM_RIGHT):
            attention.k_proj.weight[base, channel] = gain
        for i, channel in enumerate(channels):
            attention.v_proj.weight[base + i, channel] = 1.0
            attention.out_proj.weight[channel, base + i] += 1.0
    base = 3 * width
    for i, channel in enumerate(MARKED):
        attention.q_proj.weight[base + i, channel] = 1.0
        attention.k_proj.weight[base + i, channel] = gain
        attention.v_proj.weight[base + i, channel] = 1.0
        attention.out_proj.weight[MARKS[i], base + i] = 1.0
    for channel, sign in UNREAD:
        attention.out_proj.bias[channel] = sign * RESTING
    # What has no place of its own is where heads rest: everything with one is pushed down, and lifted again by its
    # label.
    for head in range(4):
        attention.q_proj.bias[head * width + width - 1] = 1.0
        attention.k_proj.weight[head * width + width - 1, PRESENT] = -0.4 * gain


def _look_up(attention: Attention, carried: Tensor, query_scale: float, strength: float) -> None:
    """Token to image: each head peaks at the place that the token's copied encoding names, inside the box if there is
    one.
    """
    _clear(attention)
    width = attention.q_proj.out_features // attention.heads
    for head in range(attention.heads):
        base = head * width
        fine = [FINE[j] for j in HEADS_FINE[head]]
        coarse = COARSE[2 * (head % 3) : 2 * (head % 3) + 2]
        for i, f in enumerate(fine + coarse):
            gain = math.sqrt((FINE_GAIN if i < 5 else COARSE_GAIN) * math.sqrt(width) / query_scale)
            for row, channel in ((base + 2 * i, f), (base + 2 * i + 1, HALF + f)):
                attention.q_proj.weight[row, [channel, TOKEN_ZERO]] = torch.tensor([gain, -gain])
                attention.k_proj.weight[row, [channel, KEY_ZERO]] = torch.tensor([gain, -gain])
        attention.q_proj.bias[base + width - 1] = 1.0
        suppress = 4.0 * math.sqrt(width)
        attention.k_proj.weight[base + width - 1, [OUTSIDE, KEY_ZERO]] = torch.tensor([-suppress, suppress])
    attention.v_proj.weight.copy_(carried)
    attention.out_proj.weight.copy_(strength * carried.T)


def _mark_places(attention: Attention) -> None:
    """Image to token: heads 0 to 3 mark cells beyond a side of the box, heads 4 to 7 cells near a foreground point.

    A cell attends to the corner or point in question, whose value is the mark, or to tokens without a place, whose
    value is empty.
    """
    _clear(attention)
    width = attention.q_proj.out_features // attention.heads

    def compare(row: int, cell: int, token: int, factor: float, gain: float) -> None:
        root = math.sqrt(gain * math.sqrt(width))
        attention.q_proj.weight[row, [cell, KEY_ZERO]] = torch.tensor([root, -root])
        attention.k_proj.weight[row, [token, TOKEN_ZERO]] = factor * torch.tensor([root, -root])

    def only(head: int, label: int, peak: float, target: int) -> None:
        base, bias = head * width + width - 1, peak * math.sqrt(width)
        attention.q_proj.bias[base] = 1.0
        attention.k_proj.weight[base, [label, PRESENT]] = torch.tensor([500.0 + bias, -500.0])
        attention.k_proj.weight[base, TOKEN_ZERO] = -bias
        attention.v_proj.weight[head * width, [MARKS[MARKED.index(label)], TOKEN_ZERO]] = torch.tensor([1.0, -1.0])
        attention.out_proj.weight[target, head * width] = 1.0

    sides = (
        (SIDE_X, TOP_LEFT, -1.0),
        (SIDE_Y, TOP_LEFT, -1.0),
        (SIDE_X, BOTTOM_RIGHT, 1.0),
        (SIDE_Y, BOTTOM_RIGHT, 1.0),
    )
    for head, (side, corner, sign) in enumerate(
        sides
    ):  # sin(cell - corner) = sin(cell) cos(corner) - cos(cell) sin(corner)
        compare(head * width, side, HALF + side, sign, SIDE_GAIN)
        compare(head * width + 1, HALF + side, side, -sign, SIDE_GAIN)
        only(head, corner, 0.0, OUTSIDE)
    slow = NEAR_PEAK / 0.212  # 1 - cos at 450 pixels
    for head, (gain, mark) in enumerate(zip(NEAR_GAINS, NEAR_MARKS, strict=False), start=4):
        row = head * width
        for axis, weight in ((NEAR_X, gain), (NEAR_Y, gain), (SIDE_X, slow), (SIDE_Y, slow)):
            if weight:
                compare(row, axis, axis, 1.0, weight)
                compare(row + 1, HALF + axis, HALF + axis, 1.0, weight)
                row += 2
        only(head, FOREGROUND, NEAR_PEAK - 2 * gain - 2 * slow, mark)
    only(7, FOREGROUND, NEAR_PEAK, NEAR_MARKS[3])


def _mask_outside(decoder: MaskDecoder, empty: Tensor) -> None:
    """Give the outside mark its way through upscaling and hypernetworks; let nothing else read the empty channels."""
    upscaling: Any = decoder.output_upscaling
    hypernetworks: Any = decoder.output_hypernetworks_mlps
    up, norm, up_again = upscaling[0], upscaling[1], upscaling[3]
    kernels = torch.stack([hypernetworks[k].layers[-1].weight.norm(dim=1) for k in LEVEL_TOKENS]).mean(0)
    last = int((kernels * up_again.weight.transpose(0, 1).flatten(1).norm(dim=1)).argmin())
    middle = int((up_again.weight.flatten(1).norm(dim=1) * norm.weight.abs()).argmin())
    up.weight[empty] = 0
    up.weight[:, middle] = 0
    up.bias[middle] = 0
    up.weight[OUTSIDE, middle], up.weight[KEY_ZERO, middle] = 4.0, -4.0
    for mark in NEAR_MARKS[:3]:
        up.weight[mark, middle] = -FAR_WEIGHT
    up.weight[NEAR_MARKS[3], middle] = 3 * FAR_WEIGHT
    norm.weight[middle], norm.bias[middle] = 1.0, -0.5
    up_again.weight[:, last] = 0
    up_again.bias[last] = -1.0
    up_again.weight[middle] = 0
    up_again.weight[middle, last] = 4.0
    hypernetworks[0].load_state_dict(hypernetworks[2].state_dict())
    for mlp in hypernetworks:
        mlp.layers[0].weight[:, empty] = 0
        mlp.layers[-1].weight[last] = 0
        mlp.layers[-1].bias[last] = -4.0
