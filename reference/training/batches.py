"""Random batches of scenes and prompts, drawn from a cache by step number, so that a resumed run sees what it would
have seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference.mobile_sam import PIXEL_MEAN, PIXEL_STD
from reference.training.scene_cache import MASK_STRIDE, SceneCache


@dataclass(frozen=True)
class PlaceBatch:
    """Images with prompted places.

    Attributes:
        images: (B, 3, S, S) normalised.
        places: (B, Q, 2) x, y in pixels of the crop.
        targets: (B, 3, Q, S/4, S/4) bool masks of the part, object and group at each place.
        on_thing: (B, Q) bool, False where the place shows background.
        ids: (3, S/4, S/4) ids of each crop.
        things: First id of an object, for each crop.
    """

    images: Tensor
    places: Tensor
    targets: Tensor
    on_thing: Tensor
    ids: list[NDArray[np.uint8]]
    things: list[int]


def normalise(images: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) bytes to (B, 3, H, W), normalised as SAM does."""
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float()
    return (pixels - torch.tensor(PIXEL_MEAN).view(3, 1, 1)) / torch.tensor(PIXEL_STD).view(3, 1, 1)


def draw_places(rng: np.random.Generator, ids: NDArray[np.uint8], count: int, by_object: float) -> NDArray[np.int64]:
    """Draw mask pixels of one (3, h, w) id map as (count, 2) rows and columns.

    Args:
        rng: Source of randomness.
        ids: Part, object and group ids.
        count: How many.
        by_object: Share drawn evenly over objects first, so that small ones get their turn; the rest evenly over
            pixels.
    """
    objects = ids[1].ravel()
    flat = rng.integers(0, objects.size, count)
    order = np.argsort(objects, kind="stable")
    _, start, size = np.unique(objects[order], return_index=True, return_counts=True)
    keep = size >= 6
    if keep.any():
        start, size = start[keep], size[keep]
        pick = rng.integers(0, len(size), count)
        even = order[start[pick] + (rng.random(count) * size[pick]).astype(np.int64)]
        flat = np.where(rng.random(count) < by_object, even, flat)
    return np.stack(np.divmod(flat, ids.shape[-1]), 1)


def _crop(
    cache: SceneCache, rng: np.random.Generator, n: int, crop: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    room = (cache.images.shape[1] - crop) // MASK_STRIDE
    y, x = rng.integers(0, room + 1, 2) if room else (0, 0)
    side = crop // MASK_STRIDE
    image = cache.images[n, y * MASK_STRIDE : y * MASK_STRIDE + crop, x * MASK_STRIDE : x * MASK_STRIDE + crop]
    return image, cache.ids[n, :, y : y + side, x : x + side]


def place_batch(
    cache: SceneCache, rng: np.random.Generator, size: int, places: int, crop: int, by_object: float = 0.6
) -> PlaceBatch:
    """A random batch of square crops, turned, mirrored and with channels swapped at random."""
    images, targets, centres, on_thing, all_ids, things = [], [], [], [], [], []
    for n in rng.integers(0, len(cache), size):
        image, ids = _crop(cache, rng, int(n), crop)
        if rng.random() < 0.5:
            image, ids = image[:, ::-1], ids[..., ::-1]
        if rng.random() < 0.5:
            image, ids = image[::-1], ids[:, ::-1]
        if rng.random() < 0.5:
            image, ids = image.transpose(1, 0, 2), ids.transpose(0, 2, 1)
        if rng.random() < 0.3:
            image = image[..., rng.permutation(3)]
        at = draw_places(rng, ids, places, by_object)
        names = ids[:, at[:, 0], at[:, 1]]
        images.append(image)
        targets.append(torch.from_numpy(ids[:, None] == names[..., None, None]))
        centres.append((at[:, ::-1] + rng.random((places, 2))) * MASK_STRIDE)
        on_thing.append(names[1] >= cache.things[n])
        all_ids.append(ids)
        things.append(int(cache.things[n]))
    return PlaceBatch(
        normalise(np.stack(images)),
        torch.from_numpy(np.stack(centres)).float(),
        torch.stack(targets),
        torch.from_numpy(np.stack(on_thing)),
        all_ids,
        things,
    )
