"""Palettes of weights: Lloyd's k-means in one dimension, deterministic.

Ours, because coremltools' own asks for scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LLOYD_ROUNDS = 100


def palette_function(bits: int) -> Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[np.uint8]]]:
    """A palette finder as coremltools' ``custom`` mode takes it, for a tensor or a group of its channels."""

    def palette(weight: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        values, inverse, counts = np.unique(weight.astype(np.float64), return_inverse=True, return_counts=True)
        centres = k_means(values, counts, 1 << bits)
        nearest = np.searchsorted((centres[:-1] + centres[1:]) / 2, values)
        return centres.astype(weight.dtype), nearest[inverse.reshape(-1)].astype(np.uint8)

    return palette


def k_means(values: NDArray[np.float64], counts: NDArray[np.int64], clusters: int) -> NDArray[np.float64]:
    """``clusters`` ascending centres for sorted distinct ``values`` that occur ``counts`` times."""
    cumulated = np.concatenate([[0], np.cumsum(counts)])
    sums = np.concatenate([[0.0], np.cumsum(values * counts)])
    # Start where the error would be least for many centres: as dense as the cube root of the values' density.
    # Over bins of equal population that density's integral grows by the width to the power of two thirds.
    bins = min(8 * clusters, len(values))
    edges = values[np.searchsorted(cumulated[1:], np.linspace(0, cumulated[-1] - 1, bins + 1), side="right")]
    growth = np.concatenate([[0.0], np.cumsum(np.cbrt(np.diff(edges)) ** 2)])
    centres: NDArray[np.float64] = np.interp((np.arange(clusters) + 0.5) / clusters * growth[-1], growth, edges)
    for _ in range(_LLOYD_ROUNDS):
        borders = np.concatenate([[0], np.searchsorted(values, (centres[:-1] + centres[1:]) / 2), [len(values)]])
        weights = np.diff(cumulated[borders])
        means = np.diff(sums[borders]) / np.maximum(weights, 1)
        centres = np.sort(np.where(weights > 0, means, centres))
    return centres
