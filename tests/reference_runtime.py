"""A runtime that is the reference itself behind the contract's ports, and broken ones, each with one fault."""

import numpy as np
import torch
from numpy.typing import NDArray

from mobilesam_export.contract import PIXEL_MEAN, PointLabel
from reference.mobile_sam import MobileSam

Floats = NDArray[np.float32]


class ReferenceRuntime:
    """Encode and decode by the contract, with the reference's own modules."""

    max_points: int | None = None

    def __init__(self, sam: MobileSam) -> None:
        self.sam = sam
        self.image_size = sam.image_size

    @torch.inference_mode()
    def encode(self, image: Floats) -> Floats:
        return self.sam.image_encoder(self.sam.normalise_and_pad(torch.from_numpy(image))).numpy()

    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        rows = [
            self._decode_one(image_embeddings, coords, labels, None if mask_input is None else mask_input[i : i + 1])
            for i, (coords, labels) in enumerate(zip(point_coords, point_labels, strict=True))
        ]
        return np.concatenate([masks for masks, _ in rows]), np.concatenate([iou for _, iou in rows])

    @torch.inference_mode()
    def _decode_one(
        self, image_embeddings: Floats, coords: Floats, labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        prompt = self.sam.prompt_encoder
        corner = np.isin(labels, (PointLabel.BOX_TOP_LEFT, PointLabel.BOX_BOTTOM_RIGHT))
        point = ~corner & (labels != PointLabel.ABSENT)
        tokens = [
            prompt.embed_points(torch.from_numpy(coords[None, point]), torch.from_numpy(labels[None, point]), pad=False)
        ]
        if corner.any():
            tokens.append(prompt.embed_boxes(torch.from_numpy(coords[corner].reshape(1, 4))))
        _, dense = prompt(masks=None if mask_input is None else torch.from_numpy(mask_input))
        masks, iou = self.sam.mask_decoder(
            torch.from_numpy(image_embeddings), prompt.image_pe(), torch.cat(tokens, dim=1), dense
        )
        return masks.numpy(), iou.numpy()


class SwappedXY(ReferenceRuntime):
    """Takes y, x for x, y."""

    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        return super().decode(image_embeddings, point_coords[..., ::-1].copy(), point_labels, mask_input)


class NoPaddingPoint(ReferenceRuntime):
    """Drops the padding point."""

    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        labels = np.where(point_labels == PointLabel.PADDING, np.float32(PointLabel.ABSENT), point_labels)
        return super().decode(image_embeddings, point_coords, labels, mask_input)


class BlackPadding(ReferenceRuntime):
    """Pads with black instead of the mean colour."""

    def encode(self, image: Floats) -> Floats:
        padding = (image == np.array(PIXEL_MEAN, np.float32).reshape(1, 3, 1, 1)).all(axis=1, keepdims=True)
        return super().encode(np.where(padding, np.float32(0), image))


class SwappedRGB(ReferenceRuntime):
    """Takes BGR for RGB."""

    def encode(self, image: Floats) -> Floats:
        return super().encode(image[:, ::-1].copy())


class IgnoredMask(ReferenceRuntime):
    """Never looks at the mask input."""

    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        return super().decode(image_embeddings, point_coords, point_labels, None)


class EmptyMasks(ReferenceRuntime):
    """Segments nothing."""

    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        masks, iou = super().decode(image_embeddings, point_coords, point_labels, mask_input)
        return np.full_like(masks, -10), iou


class NotANumber(ReferenceRuntime):
    """Overflows."""

    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        masks, iou = super().decode(image_embeddings, point_coords, point_labels, mask_input)
        return np.full_like(masks, np.nan), iou
