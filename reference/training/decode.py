"""Decode prompts on a crop as if it lay inside the 1024 model frame.

Crops of 224 pixels cost a twentieth of a full frame. Their positional encoding is cut from the full 64x64 grid at an
offset, and points move by the same offset, so that the decoder meets every place of the frame and works at 1024
afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reference.image_encoder import ENCODER_STRIDE
from reference.mobile_sam import MobileSam
from reference.values import BOX_BOTTOM_RIGHT, BOX_TOP_LEFT


@dataclass(frozen=True)
class CropPrompts:
    """P prompts on each of B crops, all with N points; box corners are points with labels 2 and 3.

    Attributes:
        coords: (B, P, N, 2) x, y in pixels of the crop.
        labels: (B, P, N) of -1 padding, 0 background, 1 foreground, 2 top left, 3 bottom right.
    """

    coords: Tensor
    labels: Tensor


def embed_prompts(sam: MobileSam, prompts: CropPrompts, offset: tuple[int, int], frame: int) -> Tensor:
    """Embed prompts of a crop whose top-left cell is `offset` (x, y) of the frame's grid; returns (B * P, N, 256)."""
    encoder = sam.prompt_encoder
    coords, labels = prompts.coords.flatten(0, 1), prompts.labels.flatten(0, 1)
    coords = coords + ENCODER_STRIDE * torch.tensor(offset, dtype=coords.dtype, device=coords.device)
    coords = (coords + 0.5) * (encoder.image_size / frame) - 0.5  # as the encoder of that frame would place them
    sparse = encoder.embed_points(coords, labels, pad=False)
    learned: Any = encoder.point_embeddings
    for label in (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT):  # embed_points leaves corners without their learned embedding
        sparse = torch.where((labels == label)[..., None], sparse + learned[label].weight, sparse)
    return sparse


def _positions(sam: MobileSam, frame: int) -> Tensor:
    """The (1, 256, frame / 16, frame / 16) positional encoding of a frame's cell centres."""
    side = frame // ENCODER_STRIDE
    centres = (torch.arange(side, device=sam.device) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    encoded: Tensor = sam.prompt_encoder.pe_layer(torch.stack([x, y], dim=-1))
    return encoded.permute(2, 0, 1)[None]


def decode_crop(
    sam: MobileSam,
    embeddings: Tensor,
    prompts: CropPrompts,
    offset: tuple[int, int],
    mask_input: Tensor | None = None,
    frame: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Decode P prompts on each of B crops.

    Args:
        sam: The model.
        embeddings: (B, 256, h, w) of the crops.
        prompts: In pixels of the crops.
        offset: x, y of the crop's first cell in the full grid.
        mask_input: (B * P, 1, 4h, 4w) logits of an earlier round.
        frame: Side of the model frame that the crops lie in; by default the model's own.

    Returns:
        (B, P, 4, 4h, 4w) logits and (B, P, 4) IoU predictions.
    """
    b, p = prompts.coords.shape[:2]
    h, w = embeddings.shape[-2:]
    x, y = offset
    frame = frame or sam.prompt_encoder.image_size
    position = _positions(sam, frame)[..., y : y + h, x : x + w]
    if mask_input is None:
        dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(b * p, -1, h, w)
    else:
        dense = sam.prompt_encoder.mask_downscaling(mask_input)
    sparse = embed_prompts(sam, prompts, offset, frame)
    images = embeddings[:, None].expand(-1, p, -1, -1, -1).flatten(0, 1)
    masks, quality = sam.mask_decoder(images, position, sparse, dense)
    return masks.unflatten(0, (b, p)), quality.unflatten(0, (b, p))
