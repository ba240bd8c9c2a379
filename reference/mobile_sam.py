"""MobileSAM (arXiv 2306.14289): TinyViT image encoder, SAM's prompt encoder and mask decoder."""

import torch
from torch import Tensor, nn

from reference.families import family_name
from reference.image_encoder import DEFAULT_BACKBONE, ImageEncoder
from reference.mask_decoder import MaskDecoder
from reference.prompt_encoder import PromptEncoder
from reference.values import PIXEL_MEAN, PIXEL_STD


def require_image_size(image_size: int) -> None:
    """Refuse a side of the model frame that no image encoder takes.

    Raises:
        ValueError: it is no positive multiple of 32.
    """
    if image_size < 32 or image_size % 32:
        raise ValueError(f"got image size {image_size}, expected a positive multiple of 32, such as 1024 or 512")


class MobileSam(nn.Module):
    """The whole model; its parts carry the official names.

    Args:
        backbone: of the image encoder, see ``ImageEncoder``.
        image_size: side S of the model frame, a multiple of 32. The official weights were trained at 1024.
        pretrained_backbone: start the body from timm's ImageNet weights (needs the network).
    """

    def __init__(
        self, backbone: str = DEFAULT_BACKBONE, image_size: int = 1024, pretrained_backbone: bool = False
    ) -> None:
        super().__init__()
        require_image_size(image_size)
        self.image_size = image_size
        self.image_encoder = ImageEncoder(backbone, pretrained_backbone, image_size)
        self.prompt_encoder = PromptEncoder(image_size=image_size)
        self.mask_decoder = MaskDecoder()
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).reshape(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).reshape(3, 1, 1), persistent=False)
        self.weights_source = "untrained"

    @property
    def family(self) -> str:
        """What this is, by its image encoder: MobileSAM (or TinySAM), RepViT-SAM m2.3, NanoSAM resnet18."""
        return family_name(self.image_encoder.backbone)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.prompt_encoder.no_mask_embed.weight.device

    def normalise_and_pad(self, images: Tensor) -> Tensor:
        """Normalise (B, 3, H, W) RGB of 0 to 255, then pad with zeros at the right and bottom to (B, 3, S, S)."""
        normalised = (images - self.pixel_mean) / self.pixel_std
        height, width = images.shape[-2:]
        return nn.functional.pad(normalised, (0, self.image_size - width, 0, self.image_size - height))

    def predict_masks(
        self,
        image_embeddings: Tensor,
        points: tuple[Tensor, Tensor] | None = None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompts in the model frame.

        Args:
            image_embeddings: (1 or B, 256, S/16, S/16).
            points: (B, N, 2) x, y coordinates and (B, N) labels.
            boxes: (B, 4) XYXY.
            mask_input: (B, 1, S/4, S/4) logits.

        Returns:
            (B, 4, S/4, S/4) logits and (B, 4) IoU predictions. Row 0 is the answer for
            ``multimask_output=False``, rows 1 to 3 for ``True``.
        """
        sparse, dense = self.prompt_encoder(points, boxes, mask_input)
        masks, iou = self.mask_decoder(image_embeddings, self.prompt_encoder.image_pe(), sparse, dense)
        return masks, iou
