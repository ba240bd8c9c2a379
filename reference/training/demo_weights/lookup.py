"""A first lesson for the image encoder, without the transformer: "the same object as here".

In SAM the transformer carries what it finds at the prompted place to the mask tokens, and hypernetworks make of each
token the kernel that is multiplied with the upscaled embedding. Here the embedding at the place is read off directly
and takes the tokens' place before the hypernetworks: dozens of prompts an image for the price of a matrix product. So
encoder, hypernetworks and upscaling learn their parts before the transformer has to find the place by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reference.image_encoder import ENCODER_STRIDE
from reference.mobile_sam import MobileSam

LEVEL_TOKENS = (1, 2, 3)  # mask tokens that stand for part, object and group


def looked_up_masks(sam: MobileSam, embeddings: Tensor, places: Tensor) -> Tensor:
    """Masks of what lies at each place, without the transformer.

    Args:
        sam: its hypernetworks and its upscaling are used, and trained.
        embeddings: (B, 256, h, w).
        places: (B, Q, 2) x, y in pixels of the crop.

    Returns:
        (B, 3, Q, 4h, 4w) logits of part, object and group.
    """
    channels, h, w = embeddings.shape[1:]
    with torch.autocast(embeddings.device.type, enabled=False):
        keys = nn.functional.layer_norm(embeddings.float().permute(0, 2, 3, 1), (channels,))  # BCHW -> BHWC
        at = ((places + 0.5) / ENCODER_STRIDE - 0.5).clamp(
            torch.zeros(2, device=places.device), torch.tensor([w - 1.0, h - 1.0], device=places.device)
        )
        # Bilinear reading as a product: along each axis a hat that is 1 at the place and 0 one cell away.
        hats = [
            (1 - (at[..., k, None] - torch.arange(n, device=at.device)).abs()).clamp(min=0) for k, n in ((0, w), (1, h))
        ]
        weights = hats[1][..., :, None] * hats[0][..., None, :]  # (B, Q, h, w)
        found = nn.functional.layer_norm(weights.flatten(2) @ keys.flatten(1, 2), (channels,))
    upscaled = sam.mask_decoder.output_upscaling(keys.permute(0, 3, 1, 2))
    kernels = torch.stack([sam.mask_decoder.output_hypernetworks_mlps[k](found) for k in LEVEL_TOKENS], 1)
    logits: Tensor = kernels.flatten(1, 2) @ upscaled.flatten(2)
    return logits.reshape(*kernels.shape[:3], *upscaled.shape[-2:])
