"""Procedural grey textures that the generated scenes are painted with.

A bank is an array of square patterns made once per split from its own seed. Objects take a random window of one
pattern, rotated and scaled, and colour it through a palette, so a few hundred patterns give an endless supply of
surfaces. The held-out bank has another seed, other parameter ranges, and two families (`weave`, `cracks`) that
training never sees.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Pattern = NDArray[np.uint8]
Float = NDArray[np.float32]

PATTERN_SIZE = 256


def texture_bank(split: str, count: int = 256) -> Pattern:
    """Make the patterns of one split.

    Args:
        split: "train" or "held-out".
        count: Number of patterns.

    Returns:
        (count, 256, 256) patterns, each stretched to 0..255.
    """
    families, seed = _split(split)
    rng = np.random.default_rng(seed)
    return np.stack([_stretch(families[i % len(families)](rng)) for i in range(count)])


def _split(split: str) -> tuple[list[Callable[[np.random.Generator], Float]], int]:
    common: list[Callable[[np.random.Generator], Float]] = [
        _cloud,
        _cloud,
        _stripes,
        _checks,
        _cells,
        _dots,
        _marble,
        _grain,
    ]
    if split == "train":
        return common, 11
    if split == "held-out":
        return [*common, _weave, _cracks], 9_000_011
    raise ValueError(f"got split {split!r}, expected 'train' or 'held-out'")


def _stretch(values: Float) -> Pattern:
    low, high = np.percentile(values, (1, 99))
    scaled = (values - low) * (255.0 / max(float(high - low), 1e-6))
    return np.asarray(np.clip(scaled, 0, 255), np.uint8)


def _grid() -> tuple[Float, Float]:
    y, x = np.mgrid[0:PATTERN_SIZE, 0:PATTERN_SIZE].astype(np.float32) / PATTERN_SIZE
    return x, y


def _noise(rng: np.random.Generator, slope: float) -> Float:
    """Noise whose amplitude falls as frequency to the power -slope, with zero mean and unit deviation."""
    spectrum = np.fft.rfft2(rng.standard_normal((PATTERN_SIZE, PATTERN_SIZE)))
    fy = np.fft.fftfreq(PATTERN_SIZE)[:, None]
    fx = np.fft.rfftfreq(PATTERN_SIZE)[None]
    radius = np.hypot(fx, fy)
    radius[0, 0] = 1
    spectrum = spectrum / radius**slope
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, s=(PATTERN_SIZE, PATTERN_SIZE))
    return np.asarray(field / field.std(), np.float32)


def _warped_grid(rng: np.random.Generator, strength: float) -> tuple[Float, Float]:
    x, y = _grid()
    return x + strength * _noise(rng, 2.0), y + strength * _noise(rng, 2.0)


def _cloud(rng: np.random.Generator) -> Float:
    return _noise(rng, rng.uniform(0.7, 2.2))


def _grain(rng: np.random.Generator) -> Float:
    return cv2.GaussianBlur(_noise(rng, 0.0), (0, 0), rng.uniform(0.5, 2.0)).astype(np.float32)


def _stripes(rng: np.random.Generator) -> Float:
    x, _ = _warped_grid(rng, rng.uniform(0, 0.02))
    wave = np.sin(2 * np.pi * rng.uniform(5, 30) * x + rng.uniform(0, 6))
    return np.asarray(np.tanh(wave * rng.uniform(0.5, 6)) + 0.15 * _noise(rng, 1.0), np.float32)


def _checks(rng: np.random.Generator) -> Float:
    x, y = _warped_grid(rng, rng.uniform(0, 0.01))
    n, m = rng.uniform(4, 20, 2)
    product = np.sin(2 * np.pi * n * x) * np.sin(2 * np.pi * m * y)
    return np.asarray(np.tanh(product * rng.uniform(1, 8)) + 0.1 * _noise(rng, 1.0), np.float32)


def _distances(rng: np.random.Generator, points: int) -> tuple[Float, NDArray[np.int32]]:
    seeds = np.full((PATTERN_SIZE, PATTERN_SIZE), 255, np.uint8)
    xy = rng.integers(0, PATTERN_SIZE, (points, 2))
    seeds[xy[:, 1], xy[:, 0]] = 0
    distance, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    return np.asarray(distance, np.float32), np.asarray(label, np.int32)


def _cells(rng: np.random.Generator) -> Float:
    distance, label = _distances(rng, int(rng.integers(40, 400)))
    shade = rng.uniform(0, 1, int(label.max()) + 1).astype(np.float32)[label]
    return np.asarray(shade + rng.uniform(-0.6, 0.6) * distance / max(float(distance.max()), 1.0), np.float32)


def _dots(rng: np.random.Generator) -> Float:
    distance, _ = _distances(rng, int(rng.integers(60, 500)))
    radius = rng.uniform(2, 6)
    return np.asarray(np.tanh(radius - distance) + 0.1 * _noise(rng, 1.0), np.float32)


def _marble(rng: np.random.Generator) -> Float:
    x, y = _grid()
    phase = rng.uniform(2, 8) * x + rng.uniform(1, 6) * y + rng.uniform(0.2, 0.8) * _noise(rng, 1.6)
    return np.asarray(np.sin(2 * np.pi * phase), np.float32)


def _weave(rng: np.random.Generator) -> Float:
    x, y = _warped_grid(rng, 0.004)
    n = rng.uniform(10, 25)
    over = np.sign(np.sin(np.pi * n * x) * np.sin(np.pi * n * y))
    threads = np.where(over > 0, np.abs(np.sin(np.pi * n * x)), 0.7 * np.abs(np.sin(np.pi * n * y)))
    return np.asarray(threads + 0.1 * _noise(rng, 0.5), np.float32)


def _cracks(rng: np.random.Generator) -> Float:
    ridge = np.abs(_noise(rng, rng.uniform(1.4, 2.0)))
    return np.asarray(np.minimum(ridge, 0.35) + 0.05 * _noise(rng, 0.5), np.float32)
