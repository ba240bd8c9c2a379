"""Where everything mode asks: a grid of points, on the whole photo and on overlapping crops of it."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reference.found_mask import Box

EDGE_TOLERANCE_PX = 20  # a mask that ends this close to a crop's edge was probably cut by it


def point_grid(per_side: int) -> NDArray[np.float64]:
    """(per_side ** 2, 2) x, y in 0 to 1, row by row: the centres of equal cells."""
    ticks = (np.arange(per_side) + 0.5) / per_side
    x, y = np.meshgrid(ticks, ticks)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def crop_boxes(size: tuple[int, int], layers: int, overlap_ratio: float) -> Iterator[tuple[int, Box]]:
    """The layer and XYXY box of every crop of a photo of (H, W) ``size``: the whole first, then 2 x 2, 4 x 4, ...

    The crops of a layer have one size but for those at the right and bottom, which end with the photo.
    """
    height, width = size
    yield 0, (0, 0, width, height)
    for layer in range(1, layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / per_side))
        crop_height, crop_width = (math.ceil((overlap * (per_side - 1) + side) / per_side) for side in size)
        for i, j in itertools.product(range(per_side), repeat=2):
            x0, y0 = (crop_width - overlap) * i, (crop_height - overlap) * j
            if x0 < width and y0 < height:  # of a few pixels not every crop gets one
                yield layer, (x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height))


def touches_crop_edge(box: Box, crop: Box, size: tuple[int, int]) -> bool:
    """Whether a box ends near an edge of its crop that is no edge of the photo (all in the photo's pixels)."""
    photo = (0, 0, size[1], size[0])
    return any(
        abs(end - edge) <= EDGE_TOLERANCE_PX < abs(end - photo_edge)
        for end, edge, photo_edge in zip(box, crop, photo, strict=True)
    )
