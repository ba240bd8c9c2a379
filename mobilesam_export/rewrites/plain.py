"""The reference as it is behind the contract's inputs and outputs, without any rewrite.

The yardstick for every deploy graph's speed, and the image encoder of students that have no folded form.
"""

from typing import cast

import torch
from torch import Tensor, nn

from mobilesam_export.contract import PIXEL_MEAN, PIXEL_STD, PointLabel
from reference.mobile_sam import MobileSam


class PlainImageEncoder(nn.Module):
    """Normalisation and the reference's image encoder."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        self.encoder = sam.image_encoder
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).reshape(1, 3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).reshape(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Encode (1, 3, S, S) RGB of 0 to 255, padded with the pad colour, as (1, 256, S/16, S/16)."""
        embeddings: Tensor = self.encoder((image - self.pixel_mean) / self.pixel_std)
        return embeddings


class PlainPromptDecoder(nn.Module):
    """The reference's prompt encoder and mask decoder; box corners come as labels, absent slots are not offered."""

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompts; inputs and outputs as in ``contract.Contract``."""
        encoder = self.prompt_encoder
        sparse = encoder.embed_points(point_coords, point_labels, pad=False)
        for corner in (PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT):
            learned = cast(nn.Embedding, encoder.point_embeddings[corner])
            sparse = sparse + learned.weight * (point_labels == corner)[..., None]
        given = has_mask_input.clamp(0, 1)
        dense = given * encoder.mask_downscaling(mask_input)
        dense = dense + (1 - given) * encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        masks, iou = self.mask_decoder(image_embeddings, encoder.image_pe(), sparse, dense)
        return masks, iou
