"""Figures from many IoUs: means, by size, with an interval; and how far predicted IoUs are from measured ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLINGS, SEED = 2000, 0
INTERVAL = (2.5, 97.5)  # percentiles
SMALL, LARGE = 32.0**2, 96.0**2  # pixels; COCO's bounds. An object of exactly such an area counts on both sides of it
BINS = 10
_AT_ONCE = 100  # resamplings; of 5,000 photos they take 4 MB


def mean_with_interval(values: Floats, photos: NDArray[np.int64]) -> dict[str, float]:
    """Mean over objects, and its 95 % interval by bootstrap.

    Whole photos are drawn, not objects: those on one photo succeed or fail together.

    Args:
        values: (N,) one an object.
        photos: (N,) number of the photo it is on.
    """
    _, photos = np.unique(photos, return_inverse=True)
    sums, counts = np.bincount(photos, values), np.bincount(photos)
    rng, means = np.random.default_rng(SEED), []
    for start in range(0, RESAMPLINGS, _AT_ONCE):
        rows = min(_AT_ONCE, RESAMPLINGS - start)
        drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), rows)
        means.append((drawn @ sums) / (drawn @ counts))
    low, high = np.percentile(np.concatenate(means), INTERVAL)
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def sizes_of(areas: Floats) -> dict[str, NDArray[np.bool_]]:
    """Which objects are small, medium and large, as NVIDIA's and COCO's evaluations count them."""
    return {"small": areas <= SMALL, "medium": (areas >= SMALL) & (areas <= LARGE), "large": areas >= LARGE}


def calibration(predicted: Floats, measured: Floats) -> dict[str, Any]:
    """How far predicted IoUs are from measured ones.

    Returns:
        ``mean_absolute_error``; ``bias``, positive where the model promises too much; ``expected_error``, the mean
        distance of the bins' means weighted by their objects; and the bins.
    """
    error = predicted - measured
    which = np.clip((predicted * BINS).astype(np.int64), 0, BINS - 1)
    bins = []
    for number in range(BINS):
        mine = which == number
        if mine.any():
            means = float(predicted[mine].mean()), float(measured[mine].mean())
            bins.append(
                {"from": number / BINS, "objects": int(mine.sum()), "predicted": means[0], "measured": means[1]}
            )
    weighted = sum(entry["objects"] * abs(entry["predicted"] - entry["measured"]) for entry in bins)
    return {
        "mean_absolute_error": float(np.abs(error).mean()),
        "bias": float(error.mean()),
        "expected_error": weighted / len(error),
        "bins": bins,
    }


def figures(
    ious: Sequence[float],
    predictions: Sequence[float],
    best: Sequence[float],
    areas: Sequence[float],
    photos: Sequence[int],
) -> dict[str, Any]:
    """All figures of one kind of prompt; each argument has one entry an object."""
    measured, area, photo = np.array(ious), np.array(areas), np.array(photos)
    by_size = {
        name: {"objects": int(mine.sum()), **(mean_with_interval(measured[mine], photo[mine]) if mine.any() else {})}
        for name, mine in sizes_of(area).items()
    }
    return {
        "objects": len(measured),
        "miou": mean_with_interval(measured, photo),
        "by_size": by_size,
        "share_above": {f"{bound:g}": float((measured >= bound).mean()) for bound in (0.5, 0.75, 0.9)},
        "best_miou": float(np.mean(best)),
        "predicted_iou": calibration(np.array(predictions), measured),
    }
