"""Masks as SA-1B ships them: a JSON document with a list of annotations, each with a `segmentation` in COCO's RLE.

A run-length code of a few bytes can stand for a mask of 100,000 x 100,000, so sizes are compared with the picture's
before anything is decoded.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST_RUN = 7  # characters; five bits each are 35 bits, more than any picture has pixels


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
        annotation: With `segmentation`: `size` [H, W], and `counts` as COCO's string or as a list.
        size: (H, W) of the picture.

    Returns:
        (H, W), with at least one pixel set.

    Raises:
        ValueError: for anything else, with the reason.
    """
    segmentation = annotation.get("segmentation") if isinstance(annotation, dict) else None
    if not isinstance(segmentation, dict):
        raise ValueError(f"expected a run-length code (size and counts), got {_kind(annotation, segmentation)}")
    if segmentation.get("size") != list(size):
        raise ValueError(f"mask of size {str(segmentation.get('size'))[:40]} on a picture of {list(size)}")
    runs = _run_lengths(segmentation.get("counts"))
    pixels = size[0] * size[1]
    if (len(runs) and (runs.min() < 0 or runs.max() > pixels)) or runs.sum() != pixels:
        raise ValueError(f"runs that do not add up to {pixels} pixels")
    if not runs[1::2].any():
        raise ValueError("empty mask")
    column_after_column = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(column_after_column.reshape(size[1], size[0]).T)


def _kind(annotation: Any, segmentation: Any) -> str:
    return "polygons" if isinstance(segmentation, list) else type(segmentation or annotation).__name__


def _run_lengths(counts: Any) -> NDArray[np.int64]:
    """Lengths of background and mask in turn, down the columns.

    COCO's string has a number in five bits a character, low bits first, bit 32 where another follows, the top bit
    as the sign; from the fourth number on it is the difference to the number two before.
    """
    if isinstance(counts, list):
        if not all(type(run) is int and 0 <= run < 2**40 for run in counts):
            raise ValueError("counts that are no whole numbers")
        return np.array(counts, np.int64)
    if not isinstance(counts, str) or not counts.isascii() or not counts:
        raise ValueError("counts that are neither COCO's string nor a list")
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("counts that are no run-length string")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > LONGEST_RUN:
        raise ValueError("a run longer than any picture")
    place = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << place, starts)
    runs -= (codes[ends] & 16 != 0).astype(np.int64) << (5 * lengths)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
