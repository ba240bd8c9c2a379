"""A photo with all its masks on it, each in a colour of its own."""

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reference.found_mask import FoundMask

GOLDEN = 0.618034  # part of the colour circle between one mask and the next: no two near ones look alike
SHARE = 0.5  # of the colour


def draw_everything(photo: NDArray[np.uint8], masks: Sequence[FoundMask]) -> Image.Image:
    """Tint the masks on the (H, W, 3) photo, small ones over large ones, and edge them in white."""
    tinted = photo.copy()
    for number, found in enumerate(sorted(masks, key=lambda mask: mask.area, reverse=True)):
        if not found.area:
            continue
        x0, y0, x1, y1 = found.box
        window, shown = (array[y0 : y1 + 1, x0 : x1 + 1] for array in (tinted, photo))
        inside = np.pad(found.pixels, 1)
        colour = np.array(colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.75, 1.0)) * 255
        middle = inside[1:-1, 1:-1]
        window[middle] = (shown[middle] * (1 - SHARE) + colour * SHARE).astype(np.uint8)
        inner = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
        window[middle & ~inner] = 255
    return Image.fromarray(tinted)
