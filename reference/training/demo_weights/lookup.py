"""A first lesson for the image encoder, without the transformer: "the same object as here".

The embedding at the prompted place is read directly, goes through SAM's hypernetworks, and is compared with SAM's
upscaled embedding: dozens of prompts an image for the price of a matrix product. Encoder, hypernetworks and upscaling
learn what they are for before the transformer between them is asked to find the place by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reference.mobile_sam import MobileSam

LEVEL_TOKENS = (1, 2, 3)  # mask tokens that stand for part, object and group


def looked_up_masks(sam: MobileSam, embeddings: Tensor, places: Tensor) -> Tensor:
    """Masks for places, by look-up.

    Args:
        sam: whose hypernetworks and upscaling take part.
        embeddings: (B, 256, h, w).
        places: (B, Q, 2) x, y in pixels of the crop.

    Returns:
        (B, 3, Q, 4h, 4w) logits of part, object and group.
    """
    channels, h, w = embeddings.shape[1:]
    with torch.autocast(embeddings.device.type, enabled=False):
        keys = nn.functional.layer_norm(embeddings.float().permute(0, 2, 3, 1), (channels,))  # BCHW -> BHWC
        at = ((places + 0.5) / 16 - 0.5).clamp(
            torch.zeros(2, device=places.device), torch.tensor([w - 1.0, h - 1.0], device=places.device)
        )
        hats = [
            (1 - (at[..., k, None] - torch.arange(n, device=at.device)).abs()).clamp(min=0) for k, n in ((0, w), (1, h))
        ]
        weights = hats[1][..., :, None] * hats[0][..., None, :]  # (B, Q, h, w), bilinear
        found = nn.functional.layer_norm(weights.flatten(2) @ keys.flatten(1, 2), (channels,))
    upscaled = sam.mask_decoder.output_upscaling(keys.permute(0, 3, 1, 2))
    kernels = torch.stack([sam.mask_decoder.output_hypernetworks_mlps[k](found) for k in LEVEL_TOKENS], 1)
    logits: Tensor = kernels.flatten(1, 2) @ upscaled.flatten(2)
    return logits.reshape(*kernels.shape[:3], *upscaled.shape[-2:])
