"""A mask that everything mode found, as packed bits of its own box."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class FoundMask:
    """One mask of everything mode, all in the photo's pixels.

    Attributes:
        box: XYXY of its outermost pixels, both inclusive; a single corner for an empty mask.
        area: pixels in the mask.
        iou_prediction: the model's own estimate.
        stability_score: 0 to 1.
        point: x, y of the point that was asked; of a box its middle.
        crop: XYXY of the crop it was found in, the last column and row exclusive.
    """

    box: Box
    area: int
    iou_prediction: float
    stability_score: float
    point: tuple[float, float]
    crop: Box
    _photo_size: tuple[int, int]
    _packed: NDArray[np.uint8]

    @property
    def photo_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self._photo_size

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) at the photo's size."""
        mask = np.zeros(self._photo_size, bool)
        if self.area:
            x0, y0, x1, y1 = self.box
            mask[y0 : y1 + 1, x0 : x1 + 1] = self.pixels
        return mask

    @property
    def pixels(self) -> NDArray[np.bool_]:
        """The part of the mask within its box."""
        return np.unpackbits(self._packed, axis=1, count=self.box[2] + 1 - self.box[0]).astype(bool)

    def with_mask(self, mask: NDArray[np.bool_]) -> Self:
        """The same, with another (H, W) mask."""
        box = outermost(mask)
        return replace(self, box=box, area=int(np.count_nonzero(mask)), _packed=pack(mask, box))


def outermost(mask: NDArray[np.bool_]) -> Box:
    """XYXY of a mask's outermost pixels, both inclusive; 0, 0, 0, 0 for an empty mask."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])) if len(columns) else (0, 0, 0, 0)


def pack(mask: NDArray[np.bool_], box: Box) -> NDArray[np.uint8]:
    """The bits of a mask within a box."""
    return np.packbits(mask[box[1] : box[3] + 1, box[0] : box[2] + 1], axis=1)
