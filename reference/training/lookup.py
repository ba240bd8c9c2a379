"""First stage of the demonstration weights: the image encoder learns to say "same object" without the transformer.

A full cold start hardly moves: the decoder cannot compare embeddings that mean nothing, and the encoder gets no
    gradient through a decoder
that looks at nothing. So the two-way transformer is left out at first. The embedding at the prompted place is read
directly (bilinearly), goes through SAM's hypernetwork MLPs, and is compared with SAM's upscaled embedding: dozens of
prompts an image for the price of a matrix product. The transformer then starts by construction as this look-up, see
`construct.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reference.mobile_sam import MobileSam

POSITION_FREQUENCIES = 32  # first frequencies of the positional encoding, read by the constructed attention
LEVEL_TOKENS = (1, 2, 3)  # mask tokens that stand for part, object and group


def position_channels(sam: MobileSam) -> Tensor:
    """A (256,) mask of the channels that carry the look-up's frequencies; the embedding leaves them empty."""
    half = sam.prompt_encoder.embed_dim // 2
    mask = torch.zeros(2 * half, dtype=torch.bool)
    mask[:POSITION_FREQUENCIES] = mask[half : half + POSITION_FREQUENCIES] = True
    return mask


class LookUp(nn.Module):
    """MobileSam's weights wired as a direct look-up; holds no weights of its own.

    Args:
        sam: The model; its encoder, hypernetworks 1 to 3 and output upscaling are trained.
    """

    content: Tensor

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        self.sam = sam
        self.register_buffer("content", (~position_channels(sam)).float()[None, :, None, None], persistent=False)

    def keys(self, embeddings: Tensor) -> Tensor:
        """(B, 256, h, w) embeddings without the empty channels, normalised as the decoder's LayerNorms do."""
        with torch.autocast("cpu", enabled=False):
            content = (embeddings.float() * self.content).permute(0, 2, 3, 1)  # BCHW -> BHWC
            keys: Tensor = nn.functional.layer_norm(content, content.shape[-1:])
            return keys.permute(0, 3, 1, 2)

    def masks(self, embeddings: Tensor, places: Tensor) -> Tensor:
        """Masks for places.

        Args:
            embeddings: (B, 256, h, w).
            places: (B, Q, 2) x, y in -1..1 of the image's side.

        Returns:
            (B, 3, Q, 4h, 4w) logits of part, object and group.
        """
        decoder, keys = self.sam.mask_decoder, self.keys(embeddings)
        with torch.autocast("cpu", enabled=False):
            found = nn.functional.grid_sample(keys, places[:, :, None], align_corners=False, padding_mode="border")
            found = nn.functional.layer_norm(found.squeeze(3).transpose(1, 2), keys.shape[1:2])
        upscaled = decoder.output_upscaling(keys)
        kernels = torch.stack([decoder.output_hypernetworks_mlps[k](found) for k in LEVEL_TOKENS], 1)
        with torch.autocast("cpu", enabled=False):
            logits: Tensor = kernels.float().flatten(1, 2) @ upscaled.float().flatten(2)
        return logits.reshape(*kernels.shape[:3], *upscaled.shape[-2:])
