"""Where a person would click: the pixel of a mask that is farthest from its edge."""

import numpy as np
from numpy.typing import NDArray

_FAR = 2**20  # pixels; its square fits into int64


def innermost(mask: NDArray[np.bool_]) -> tuple[int, int, float]:
    """The pixel with the largest distance to the nearest one outside the mask; the photo's border is outside.

    The distance is exact (Euclidean, between pixel centres); of equal ones the first in reading order is taken.

    Args:
        mask: (H, W).

    Returns:
        x, y, and the distance in pixels, 0 for an empty mask.
    """
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return 0, 0, 0.0
    left, top = int(columns[0]), int(rows[0])
    inside = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    in_row = _distance_in_row(inside) ** 2
    squared = in_row.copy()
    for away in range(1, len(squared)):
        if away**2 >= squared.max():
            break
        np.minimum(squared[away:], in_row[:-away] + away**2, out=squared[away:])
        np.minimum(squared[:-away], in_row[away:] + away**2, out=squared[:-away])
    y, x = np.unravel_index(int(squared.argmax()), squared.shape)
    return left + int(x) - 1, top + int(y) - 1, float(np.sqrt(squared[y, x]))


def _distance_in_row(inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Of each pixel to the nearest one in its row that is outside; both ends of every row are."""
    at = np.arange(inside.shape[1])
    before = np.maximum.accumulate(np.where(inside, -_FAR, at), axis=1)
    after = np.minimum.accumulate(np.where(inside, _FAR, at)[:, ::-1], axis=1)[:, ::-1]
    distance: NDArray[np.int64] = np.minimum(at - before, after - at)
    return distance
