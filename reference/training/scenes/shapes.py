"""Random silhouettes, as closed contours around the origin.

A silhouette is a list of contours filled by the even-odd rule, so that a ring is an outer and an inner contour.
Coordinates are x, y in units of the silhouette's radius.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Contour = NDArray[np.float64]
Silhouette = list[Contour]

_FRACTION_BITS = 4  # contours are rasterised at a sixteenth of a pixel


def random_silhouette(rng: np.random.Generator) -> Silhouette:
    """Draw one silhouette from the nine families, stretched and rotated at random."""
    family = _FAMILIES[int(rng.choice(len(_FAMILIES), p=_WEIGHTS))]
    contours = family(rng)
    angle, stretch = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-0.5, 0.5))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return [(c * (np.sqrt(stretch), 1 / np.sqrt(stretch))) @ turn.T for c in contours]


def fill(
    shape: tuple[int, int], silhouette: Silhouette, centre: tuple[float, float], radius: float
) -> NDArray[np.uint8]:
    """Rasterise a silhouette with soft edges.

    Args:
        shape: H, W of the mask.
        silhouette: Contours in units of the radius.
        centre: x, y in pixels.
        radius: Pixels.

    Returns:
        (H, W) coverage, 0..255.
    """
    mask = np.zeros(shape, np.uint8)
    pixels = [np.round((c * radius + centre) * 2**_FRACTION_BITS).astype(np.int32) for c in silhouette]
    cv2.fillPoly(mask, pixels, 255, cv2.LINE_AA, _FRACTION_BITS)
    return mask


def _circle(count: int = 48) -> Contour:
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(t), np.sin(t)], 1)


def _ellipse(_: np.random.Generator) -> Silhouette:
    return [_circle()]


def _superellipse(rng: np.random.Generator) -> Silhouette:
    unit = _circle()
    return [np.sign(unit) * np.abs(unit) ** rng.uniform(0.15, 0.6) * 0.85]


def _polygon(rng: np.random.Generator) -> Silhouette:
    count = int(rng.integers(3, 8))
    t = 2 * np.pi * (np.arange(count) + rng.uniform(-0.35, 0.35, count)) / count
    return [np.stack([np.cos(t), np.sin(t)], 1) * rng.uniform(0.75, 1.05, (count, 1))]


def _star(rng: np.random.Generator) -> Silhouette:
    count = int(rng.integers(4, 8))
    t = np.pi * np.arange(2 * count) / count
    radius = np.where(np.arange(2 * count) % 2, rng.uniform(0.4, 0.7), 1.05)
    return [np.stack([np.cos(t), np.sin(t)], 1) * radius[:, None]]


def _blob(rng: np.random.Generator) -> Silhouette:
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    radius = np.full(64, 0.8)
    for k in range(2, 7):
        radius += rng.normal(0, 0.35 / k) * np.cos(k * t + rng.uniform(0, 2 * np.pi))
    return [np.stack([np.cos(t), np.sin(t)], 1) * np.clip(radius, 0.2, 1.3)[:, None]]


def _leaf(rng: np.random.Generator) -> Silhouette:
    t = np.linspace(0, np.pi, 24)
    width, bend = rng.uniform(0.25, 0.7), rng.uniform(-0.4, 0.4)
    upper = np.stack([np.cos(t), width * np.sin(t) ** 1.3 + bend * np.sin(t)], 1)
    lower = np.stack([np.cos(t[::-1]), -width * np.sin(t) ** 1.3 + bend * np.sin(t)], 1)
    return [np.concatenate([upper, lower]) * 1.1]


def _strip(rng: np.random.Generator) -> Silhouette:
    """A bent band of even width: bottles, bananas, cables."""
    t = np.linspace(-1, 1, 24)
    bend, wave, width = rng.uniform(-0.6, 0.6), rng.uniform(-0.3, 0.3), rng.uniform(0.15, 0.35)
    spine = np.stack([t, bend * (1 - t**2) + wave * np.sin(np.pi * t)], 1) * 1.1
    along = np.gradient(spine, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True)
    return [np.concatenate([spine + width * normal, (spine - width * normal)[::-1]])]


def _ring(rng: np.random.Generator) -> Silhouette:
    return [_circle(), _circle() * rng.uniform(0.35, 0.65) + rng.uniform(-0.08, 0.08, 2)]


def _letter(rng: np.random.Generator) -> Silhouette:
    """A T, L, U or plus made of bars."""
    w = rng.uniform(0.3, 0.5)
    forms = [
        [(-1, -1), (1, -1), (1, -1 + w), (w / 2, -1 + w), (w / 2, 1), (-w / 2, 1), (-w / 2, -1 + w), (-1, -1 + w)],
        [(-1, -1), (-1 + w, -1), (-1 + w, 1 - w), (1, 1 - w), (1, 1), (-1, 1)],
        [(-1, -1), (-1 + w, -1), (-1 + w, 1 - w), (1 - w, 1 - w), (1 - w, -1), (1, -1), (1, 1), (-1, 1)],
        [(-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w), (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w)],
    ]
    return [np.array(forms[int(rng.integers(len(forms)))], np.float64) * 0.85]


_FAMILIES: list[Callable[[np.random.Generator], Silhouette]] = [
    _ellipse,
    _superellipse,
    _polygon,
    _star,
    _blob,
    _leaf,
    _strip,
    _ring,
    _letter,
]
_WEIGHTS = np.array([3, 3, 3, 1, 5, 2, 2, 0.7, 1]) / 20.7
