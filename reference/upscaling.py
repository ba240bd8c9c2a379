"""Bring a mask's logits to the photo's size, only where the mask can be.

``transforms.upscale_logits`` is two bilinear steps, each linear and the same for rows and columns: together they make
each pixel a weighted mean of at most three logits a side. Where all logits nearby are below a value, so is every pixel.
That part is left out.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from reference.transforms import resized_size

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Region:
    """Logits of a part of the photo; everywhere else they are at most the floor that was asked for.

    Attributes:
        left, top: of the part, in the photo's pixels.
        logits: (h, w), h or w 0 if they are at most the floor everywhere.
    """

    left: int
    top: int
    logits: Floats


class Upscaler:
    """For photos of (H, W) ``size`` in a model frame of side ``image_size``."""

    def __init__(self, size: tuple[int, int], image_size: int) -> None:
        (height, width), resized = size, resized_size(size, image_size)
        self._rows = _Axis(_weights(height, resized[0], image_size))
        self._columns = _Axis(_weights(width, resized[1], image_size))

    def region(self, logits: Floats, floor: float) -> Region:
        """The part of (S/4, S/4) logits that is above ``floor``, at the photo's size."""
        above = logits > floor
        rows = self._rows.reached(np.flatnonzero(above.any(axis=1)))
        columns = self._columns.reached(np.flatnonzero(above.any(axis=0)))
        # Whole rows are gathered, of the logits and then of what came out, turned: memory in order.
        tall = self._rows.mean(logits, rows)
        wide = self._columns.mean(np.ascontiguousarray(tall.T), columns)
        return Region(columns.start, rows.start, wide.T)


class _Axis:
    """Pixels of one axis as weighted means of logits."""

    def __init__(self, weights: Floats) -> None:
        """Of (pixels, logits) ``weights``."""
        there = weights != 0
        self._last = weights.shape[1] - 1 - there[:, ::-1].argmax(axis=1)
        self._first = there.argmax(axis=1)
        self._count = int((self._last - self._first).max()) + 1
        taps = np.minimum(self._first[:, None] + np.arange(self._count), weights.shape[1] - 1)
        within = self._first[:, None] + np.arange(self._count) <= self._last[:, None]
        self._taps = taps
        self._weights = np.take_along_axis(weights, taps, axis=1) * within

    def reached(self, logits: NDArray[np.int64]) -> slice:
        """The pixels to which logits in a range contribute."""
        if not len(logits):
            return slice(0, 0)
        start = int(np.searchsorted(self._last, logits[0]))
        return slice(start, int(np.searchsorted(self._first, logits[-1], side="right")))

    def mean(self, values: Floats, pixels: slice) -> Floats:
        """The rows of ``pixels`` from (logits, ...) ``values``."""
        taps, weights = self._taps[pixels], self._weights[pixels]
        total: Floats = values[taps[:, 0]] * weights[:, :1]
        for number in range(1, self._count):
            total += values[taps[:, number]] * weights[:, number : number + 1]
        return total


def _weights(side: int, resized: int, image_size: int) -> Floats:
    """(side, S/4): how much each logit contributes to each pixel of an axis."""
    each = torch.eye(image_size // 4)[None]
    frame = F.interpolate(each, image_size, mode="linear", align_corners=False)[..., :resized]
    weights: Floats = F.interpolate(frame, side, mode="linear", align_corners=False)[0].T.contiguous().numpy()
    return weights
