"""Masks as run-length codes, the form in which COCO, LVIS and SA-1B ship them: ``{"size": [H, W], "counts": ...}``.

The lengths of background and mask in turn, down the columns. ``counts`` is a list of them, or COCO's string: five bits
a character, low bits first, 32 added where another follows, the last one's top bit as the sign; from the fourth number
on it is the difference to the number two before.

A code of a few bytes can stand for a mask of 100,000 x 100,000, so sizes are compared before anything is decoded.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST_RUN = 7  # characters; five bits each are 35 bits, more than any picture has pixels


def encode(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """The code of an (H, W) mask, with COCO's string, as pycocotools writes it."""
    pixels = mask.T.reshape(-1)  # column after column
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    starts = np.concatenate([[0], [0] if pixels[0] else [], edges, [pixels.size]]).astype(np.int64)
    return {"size": list(mask.shape), "counts": _string(np.diff(starts))}


def decode(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The (H, W) mask of a code.

    Args:
        segmentation: what somebody wrote; nothing is taken for granted.
        size: (H, W) of the picture it has to fit.

    Raises:
        ValueError: it is no such code, with the reason.
    """
    if not isinstance(segmentation, dict):
        raise ValueError(f"expected a run-length code (size and counts), got {type(segmentation).__name__}")
    if segmentation.get("size") != list(size):
        raise ValueError(f"mask of size {str(segmentation.get('size'))[:40]} on a picture of {list(size)}")
    runs = _run_lengths(segmentation.get("counts"))
    pixels = size[0] * size[1]
    if (len(runs) and (runs.min() < 0 or runs.max() > pixels)) or runs.sum() != pixels:
        raise ValueError(f"runs that do not add up to {pixels} pixels")
    column_after_column = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(column_after_column.reshape(size[1], size[0]).T)


def _string(runs: NDArray[np.int64]) -> str:
    rest = runs.copy()
    rest[3:] -= runs[1:-2]
    characters = np.zeros((len(runs), LONGEST_RUN), np.uint8)  # 0: none here
    going_on = np.ones(len(runs), bool)
    for place in range(LONGEST_RUN):
        five = rest & 31
        rest = rest >> 5
        more = ~(((rest == 0) & (five & 16 == 0)) | ((rest == -1) & (five & 16 != 0)))
        characters[:, place] = np.where(going_on, five + 32 * more + 48, 0)
        going_on &= more
    return bytes(characters[characters > 0]).decode("ascii")


def _run_lengths(counts: Any) -> NDArray[np.int64]:
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
