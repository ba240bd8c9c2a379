"""Between the image frame (the photo's own pixels) and the model frame (longest side S, padded to a square).

The rules are SAM's (``ResizeLongestSide`` and ``postprocess_masks``, Apache-2.0): sizes are rounded half
up, x and y are scaled apart by the rounded sizes, masks come back through two bilinear steps.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from reference.values import MASK_THRESHOLD


def resized_size(size: tuple[int, int], image_size: int) -> tuple[int, int]:
    """The (H, W) that a photo of (H, W) ``size`` takes in a model frame of side ``image_size``.

    The shorter side of a very elongated photo is kept at one pixel at least.
    """
    scale = image_size / max(size)
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def resize_longest_side(image: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """Resize (H, W, 3) uint8 so that its longest side is ``image_size``: PIL bilinear, antialiased, uint8 out."""
    height, width = resized_size((image.shape[0], image.shape[1]), image_size)
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def to_model_frame(coords: NDArray[np.floating], size: tuple[int, int], image_size: int) -> NDArray[np.float64]:
    """Scale (..., 2) x, y image-frame pixels of a photo of (H, W) ``size`` to the model frame."""
    height, width = resized_size(size, image_size)
    scaled: NDArray[np.float64] = np.asarray(coords, np.float64) * np.array([width / size[1], height / size[0]])
    return scaled


def to_image_frame(coords: NDArray[np.floating], size: tuple[int, int], image_size: int) -> NDArray[np.float64]:
    """The inverse of ``to_model_frame``."""
    height, width = resized_size(size, image_size)
    scaled: NDArray[np.float64] = np.asarray(coords, np.float64) * np.array([size[1] / width, size[0] / height])
    return scaled


def boxes_to_model_frame(boxes: NDArray[np.floating], size: tuple[int, int], image_size: int) -> NDArray[np.float64]:
    """Scale (..., 4) XYXY boxes of a photo of (H, W) ``size`` to the model frame."""
    boxes = np.asarray(boxes)
    return to_model_frame(boxes.reshape(*boxes.shape[:-1], 2, 2), size, image_size).reshape(boxes.shape)


def upscale_logits(low_res_masks: Tensor, size: tuple[int, int], image_size: int) -> Tensor:
    """Bring logits to the photo's size: to the model frame, crop the padding, to the image frame.

    Args:
        low_res_masks: (B, C, S/4, S/4) logits.
        size: (H, W) of the photo.
        image_size: S.

    Returns:
        (B, C, H, W) logits; threshold them last.
    """
    height, width = resized_size(size, image_size)
    full = F.interpolate(low_res_masks, (image_size, image_size), mode="bilinear", align_corners=False)
    return F.interpolate(full[..., :height, :width], size, mode="bilinear", align_corners=False)


def logits_to_masks(low_res_masks: NDArray[np.float32], size: tuple[int, int], image_size: int) -> NDArray[np.bool_]:
    """Booleans at the photo's size from (B, C, S/4, S/4) logits: ``upscale_logits``, then above the threshold.

    One mask at a time, so that a 12-megapixel photo never holds more than one float map.
    """
    batch, channels = low_res_masks.shape[:2]
    masks = np.empty((batch, channels, *size), bool)
    for b in range(batch):
        for c in range(channels):
            logits = torch.from_numpy(np.ascontiguousarray(low_res_masks[b : b + 1, c : c + 1]))
            masks[b, c] = (upscale_logits(logits, size, image_size)[0, 0] > MASK_THRESHOLD).numpy()
    return masks
