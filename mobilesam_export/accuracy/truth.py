"""What an annotation says: its mask, box and area."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.accuracy.dataset import Annotation
from mobilesam_export.accuracy.mask_folder import read_mask
from reference import run_lengths
from reference.polygons import fill_polygons

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Truth:
    """One object as it is.

    Attributes:
        mask: (H, W), not empty.
        box: XYXY in pixels, the right and bottom edge exclusive.
        area: in pixels, as annotated.
    """

    mask: NDArray[np.bool_]
    box: Box
    area: float


def truth_of(annotation: Annotation, size: tuple[int, int]) -> Truth:
    """The object on a photo of (H, W) ``size``.

    Raises:
        ValueError: the annotation is none of this photo, or says nothing, with the reason.
    """
    mask = _mask_of(annotation.segmentation, size)
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        raise ValueError("an empty mask")
    tight = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    area = float(np.count_nonzero(mask)) if annotation.area is None else annotation.area
    return Truth(mask, annotation.box or tight, area)


def _mask_of(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    if isinstance(segmentation, Path):
        return read_mask(segmentation, size)
    if isinstance(segmentation, list):
        return fill_polygons(segmentation, size)
    return run_lengths.decode(segmentation, size)


def mask_iou(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union with a mask that is not empty."""
    return float(np.count_nonzero(found & truth) / np.count_nonzero(found | truth))
