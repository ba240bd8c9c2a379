"""Pixels as SAM normalises them, and as JPEG in shards and tar files."""

from __future__ import annotations

import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reference.values import PIXEL_MEAN, PIXEL_STD

JPEG_QUALITY = 95


def normalise(images: Tensor) -> Tensor:
    """(..., 3, H, W) float RGB of 0..255, normalised as SAM does; on the same device."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return (images - mean) / std


def to_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode an (H, W, 3) picture."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def from_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Decode what `to_jpeg` wrote to (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(data), formats=("JPEG",)).convert("RGB"))
