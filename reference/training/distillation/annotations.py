"""Masks as SA-1B and COCO ship them: annotations with a `segmentation`, in COCO's RLE or as polygons.

SA-1B has a JSON document for each picture; COCO's one for all is read in `coco.py`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference import run_lengths
from reference.polygons import fill_polygons


def read_annotations(document: bytes) -> list[Any]:
    """The annotations of a picture, not yet looked at.

    Raises:
        ValueError: if it is no JSON document with a list of `annotations`.
    """
    try:
        found = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its JSON cannot be read: {error}") from error
    annotations = found.get("annotations") if isinstance(found, dict) else None
    if not isinstance(annotations, list):
        raise ValueError("its JSON has no list of annotations")
    return annotations


def decode_mask(annotation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode an annotation's mask.

    Args:
        annotation: With `segmentation`: `size` [H, W], and `counts` as COCO's string or as a list; or polygons, a list
            of lists of x, y, x, y, ...
        size: (H, W) of the picture.

    Returns:
        (H, W), with at least one pixel set.

    Raises:
        ValueError: for anything else, with the reason.
    """
    segmentation = annotation.get("segmentation") if isinstance(annotation, dict) else None
    if isinstance(segmentation, list):
        mask = fill_polygons(segmentation, size)
    elif isinstance(segmentation, dict):
        mask = run_lengths.decode(segmentation, size)
    else:
        kind = type(segmentation or annotation).__name__
        raise ValueError(f"expected a run-length code (size and counts) or polygons, got {kind}")
    if not mask.any():
        raise ValueError("empty mask")
    return mask
