"""A resized photo laid into the model frame, as every encoder takes it, and photos to calibrate with."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mobilesam_export.contract import PAD_COLOUR
from mobilesam_export.photos import PHOTO_DIR
from reference.images import read_image
from reference.transforms import resize_longest_side


def model_frame(
    resized: NDArray[np.uint8],
    image_size: int,
    *,
    pad_colour: Sequence[float] = PAD_COLOUR,
    dtype: DTypeLike = np.float32,
    channels_first: bool = True,
) -> NDArray[Any]:
    """Lay (H, W, 3) into the top-left corner of a square; the rest has the pad colour.

    Args:
        resized: its longest side is S.
        image_size: S.
        pad_colour: the exact mean, which is zero once normalised, or ``PAD_COLOUR_8BIT``.

    Returns:
        (1, 3, S, S), or (1, S, S, 3) without ``channels_first``.
    """
    height, width = resized.shape[:2]
    shape = (1, 3, image_size, image_size) if channels_first else (1, image_size, image_size, 3)
    frame: NDArray[Any] = np.empty(shape, dtype)
    pixels = frame[0].transpose(1, 2, 0) if channels_first else frame[0]  # (S, S, 3), a view
    pixels[:] = pad_colour
    pixels[:height, :width] = resized
    return frame


def mirrored_photos(image_size: int, photos: Sequence[Path] | None = None) -> Iterator[NDArray[np.uint8]]:
    """Photos (the bundled ones if None), mirrored and resized to (H, W, 3).

    Mirrored, so that the photos which judge a recipe (parity) are not the ones that it was calibrated on.
    """
    for path in sorted(PHOTO_DIR.glob("*.png")) if photos is None else photos:
        yield resize_longest_side(np.ascontiguousarray(read_image(path)[:, ::-1]), image_size)
