"""Fill small holes of a mask and drop its small islands, as SAM's generator does with ``min_mask_region_area``.

Pixels that touch at a corner belong together (SAM's rule, and OpenCV's with connectivity 8), in islands and holes.
"""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def without_small_regions(mask: Mask, area: int) -> tuple[Mask, bool]:
    """``fill_holes``, then ``remove_islands`` of what that gives.

    Returns:
        The (H, W) mask, and whether there was anything small, which for SAM is the same as a change.
    """
    filled, holes = _filled(mask, area)
    cleaned, islands = _without_islands(filled, area)
    return cleaned, holes or islands


def fill_holes(mask: Mask, area: int) -> Mask:
    """Fill regions outside the (H, W) mask of fewer than ``area`` pixels, also at the photo's edge."""
    return _filled(mask, area)[0]


def remove_islands(mask: Mask, area: int) -> Mask:
    """Drop regions of the (H, W) mask of fewer than ``area`` pixels.

    The largest stays if all are small; of equally large ones the first in reading order, as in the hosts of ``apps/``.
    """
    return _without_islands(mask, area)[0]


def _filled(mask: Mask, area: int) -> tuple[Mask, bool]:
    outside, areas = label_regions(~mask)
    small = areas < area
    return mask | np.isin(outside, np.flatnonzero(small) + 1), bool(small.any())


def _without_islands(mask: Mask, area: int) -> tuple[Mask, bool]:
    islands, areas = label_regions(mask)
    small = areas < area
    if not small.any():
        return mask.copy(), False
    kept = np.flatnonzero(~small) + 1
    return np.isin(islands, kept if len(kept) else areas.argmax() + 1), True


def label_regions(mask: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the connected regions of an (H, W) mask from 1 on, in reading order of their first pixels.

    Returns:
        (H, W) numbers, 0 outside; and the area of each region.
    """
    height, width = mask.shape
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)  # runs of mask pixels in a row, in reading order
    ends = np.nonzero(steps == -1)[1]  # exclusive
    first = np.searchsorted(rows, np.arange(height + 1))  # of each row
    # Runs of the row above that a run touches, by a corner too: those that end at its start or later and begin at its
    # end or before. As runs in a row are apart and sorted, they are consecutive.
    key = width + 2
    above_from = np.searchsorted(rows * key + ends, (rows - 1) * key + starts)
    above_to = np.searchsorted(rows * key + starts, (rows - 1) * key + ends, side="right")
    above_from, above_to = np.maximum(above_from, first[np.maximum(rows - 1, 0)]), np.minimum(above_to, first[rows])
    counts = np.where(rows > 0, np.maximum(above_to - above_from, 0), 0)
    below = np.repeat(np.arange(len(rows)), counts)
    above = np.repeat(above_from, counts) + np.arange(len(below)) - np.repeat(np.cumsum(counts) - counts, counts)
    root = _join(len(rows), above, below)
    names, number = np.unique(root, return_inverse=True)
    areas = np.bincount(number, ends - starts, minlength=len(names)).astype(np.int64)
    labels = np.zeros(height * width, np.int64)
    labels[np.flatnonzero(mask)] = np.repeat(number + 1, ends - starts)
    return labels.reshape(height, width), areas


def _join(count: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest member of each one's set, where pairs ``a``, ``b`` are in one set."""
    root = np.arange(count)
    while True:
        lower = np.minimum(root[a], root[b])
        before = root.copy()
        np.minimum.at(root, root[a], lower)
        np.minimum.at(root, root[b], lower)
        while True:  # everyone follows to the end
            further = root[root]
            if (further == root).all():
                break
            root = further
        if (root == before).all():
            return root
