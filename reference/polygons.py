"""Fill COCO's polygons to the pixel as pycocotools does (its ``frPoly``, without which no mIoU is comparable).

Corners are rounded to fifths of a pixel, edges are walked in such steps, and where an edge crosses the middle of a
pixel column, the pixels of that column below the crossing change sides.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

FINENESS = 5  # steps a pixel
MOST_STEPS = 50_000_000  # of one outline; around a photo of 10,000 x 10,000 there are 200,000
_REACH = 4  # a corner may lie outside by this many times the photo's longest side


def fill_polygons(polygons: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of polygons as an (H, W) mask.

    Args:
        polygons: lists of x, y, x, y, ...
        size: (H, W) of the picture.

    Raises:
        ValueError: they are none, with the reason.
    """
    mask = np.zeros(size, bool)
    if not isinstance(polygons, list) or not polygons:
        raise ValueError("no polygon")
    for polygon in polygons:
        mask |= _fill(_corners(polygon, size), size)
    return mask


def _corners(polygon: Any, size: tuple[int, int]) -> NDArray[np.float64]:
    """(N, 2) x, y."""
    if not isinstance(polygon, Sequence) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError(f"a polygon of {len(polygon) if isinstance(polygon, Sequence) else 'no'} numbers")
    try:
        corners = np.array(polygon, np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("a polygon of something else than numbers") from error
    if not (np.abs(corners) <= _REACH * max(size)).all():  # NaN is not
        raise ValueError("a polygon far outside the picture")
    return corners


def _fill(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = size
    start = np.trunc(FINENESS * corners + 0.5).astype(np.int64)
    end = np.roll(start, -1, axis=0)
    span = np.abs(end - start)
    steps = span.max(axis=1)
    if int(steps.sum()) > MOST_STEPS:
        raise ValueError(f"a polygon whose outline is longer than {MOST_STEPS // FINENESS:,} pixels")
    along = np.where(span[:, 0] >= span[:, 1], 0, 1)  # the axis that has the more steps
    edges = np.arange(len(start))
    backwards = start[edges, along] > end[edges, along]  # edges are walked with that axis, and listed in their order
    first, last = (np.where(backwards[:, None], a, b) for a, b in ((end, start), (start, end)))
    slope = (last - first)[edges, 1 - along] / np.maximum(steps, 1)

    edge = np.repeat(edges, steps + 1)
    walked = np.arange(len(edge)) - np.repeat(np.cumsum(steps + 1) - (steps + 1), steps + 1)
    step = np.where(backwards[edge], steps[edge] - walked, walked)
    points = np.empty((len(edge), 2), np.int64)
    rows = np.arange(len(edge))
    points[rows, along[edge]] = first[edge, along[edge]] + step
    points[rows, 1 - along[edge]] = np.trunc(first[edge, 1 - along[edge]] + slope[edge] * step + 0.5)

    x, y = points[:, 0], points[:, 1]
    crossing = np.flatnonzero(x[1:] != x[:-1])
    column = (np.maximum(x[crossing], x[crossing + 1]) - 1 + 0.5) / FINENESS - 0.5
    row = np.ceil(np.clip((np.minimum(y[crossing], y[crossing + 1]) + 0.5) / FINENESS - 0.5, 0, height))
    middle = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    changes = (column[middle] * height + row[middle]).astype(np.int64)  # pixels are counted down the columns
    inside = np.bincount(changes, minlength=height * width + 1)[: height * width].cumsum() & 1
    return inside.astype(bool).reshape(width, height).T
