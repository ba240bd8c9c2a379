"""Random prompts for training, drawn from id maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reference.training.decode import CropPrompts
from reference.training.scenes.scene_cache import MASK_STRIDE
from reference.values import BACKGROUND_LABEL, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND_LABEL, PADDING_LABEL

LEVEL_ODDS = (0.15, 0.7, 0.15)  # part, object, group: what a prompt means
Ids = NDArray[np.uint8]


@dataclass(frozen=True)
class PromptBatch:
    """Prompts and what the four mask tokens should answer.

    Attributes:
        prompts: P on each of B crops.
        meant: (B, P, h, w) bool, the mask that the prompt was made from.
        answers: (B, P, 4, h, w) bool. To a lone click tokens 1 to 3 answer part, object and group, token 0 what is
            meant; to any other prompt all answer what is meant.
    """

    prompts: CropPrompts
    meant: Tensor
    answers: Tensor


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


def pixel_of(rng: np.random.Generator, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> tuple[float, float]:
    """A random place, x and y in crop pixels, inside one of the given mask pixels."""
    k = int(rng.integers(len(rows)))
    x, y = (np.array([columns[k], rows[k]]) + rng.random(2)) * MASK_STRIDE - 0.5
    return float(x), float(y)


def box_of(rng: np.random.Generator, mask: NDArray[np.bool_], jitter: float) -> tuple[float, float, float, float]:
    """The mask's tight box in crop pixels, each side moved by a normal share of its length."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) * float(MASK_STRIDE) - (0, 0, 1, 1)
    side = np.array([box[2] - box[0], box[3] - box[1]])
    box = box + jitter * rng.standard_normal(4) * np.tile(side, 2)
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])


def draw_prompts(
    rng: np.random.Generator, ids: list[Ids], things: list[int], count: int, two_points: bool
) -> PromptBatch:
    """Draw prompts for a batch of crops.

    Args:
        rng: Source of randomness.
        ids: (3, h, w) of each crop, at the resolution of the masks.
        things: First id of an object, for each crop.
        count: Prompts a crop.
        two_points: With three tokens (click and click, click and box) instead of two (click and padding, or a box).
    """
    coords, labels, meant, answers = [], [], [], []
    for crop, first in zip(ids, things, strict=True):
        places = draw_places(rng, crop, count * 3, by_object=0.85)
        on_thing = crop[1, places[:, 0], places[:, 1]] >= first
        places = np.concatenate([places[on_thing], places[~on_thing]])[:count]  # background only where objects run out
        for row, column in places:
            level = int(rng.choice(3, p=LEVEL_ODDS))
            names = crop[:, row, column]
            levels = crop == names[:, None, None]
            mask = levels[level]
            xy, kinds, lone = _one_prompt(rng, mask, (row, column), two_points)
            coords.append(xy)
            labels.append(kinds)
            meant.append(mask)
            answers.append(np.stack([mask, *(levels if lone else (mask, mask, mask))]))
    b, p, n = len(ids), count, 3 if two_points else 2
    prompts = CropPrompts(
        torch.tensor(coords, dtype=torch.float32).view(b, p, n, 2), torch.tensor(labels).view(b, p, n)
    )
    masks, four = torch.from_numpy(np.stack(meant)), torch.from_numpy(np.stack(answers))
    return PromptBatch(prompts, masks.reshape(b, p, *masks.shape[1:]), four.reshape(b, p, *four.shape[1:]))


def _one_prompt(
    rng: np.random.Generator, mask: NDArray[np.bool_], place: tuple[int, int], two_points: bool
) -> tuple[list[tuple[float, float]], list[int], bool]:
    """Coordinates, labels, and whether it is a lone click."""
    click = pixel_of(rng, np.array([place[0]]), np.array([place[1]]))
    if not two_points:
        if rng.random() < 0.5:
            return [click, (0.0, 0.0)], [FOREGROUND_LABEL, PADDING_LABEL], True
        left, top, right, bottom = box_of(rng, mask, 0.05 if rng.random() < 0.25 else 0.0)
        return [(left, top), (right, bottom)], [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], False
    kind = rng.random()
    if kind < 0.35:
        left, top, right, bottom = box_of(rng, mask, 0.05 if rng.random() < 0.25 else 0.0)
        return [click, (left, top), (right, bottom)], [FOREGROUND_LABEL, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT], False
    second_inside = kind < 0.7 or bool(mask.all())
    second = pixel_of(rng, *np.nonzero(mask if second_inside else ~mask))
    label = FOREGROUND_LABEL if second_inside else BACKGROUND_LABEL
    return [click, second, (0.0, 0.0)], [FOREGROUND_LABEL, label, PADDING_LABEL], False


def correct(rng: np.random.Generator, prompts: CropPrompts, logits: Tensor, meant: Tensor) -> CropPrompts:
    """Replace the padding point, or add a point, where an answer was wrong: SAM's second round.

    Args:
        rng: Source of randomness.
        prompts: The first round, P on each of B crops.
        logits: (B, P, h, w) of the first round's answer.
        meant: (B, P, h, w) bool.

    Returns:
        The prompts with one more point each, before the old ones; it misses what it should have found, or the reverse.
    """
    wrong = ((logits > 0) != meant).numpy()
    truth = meant.numpy()
    added, kinds = [], []
    for b, p in np.ndindex(*wrong.shape[:2]):
        rows, columns = np.nonzero(wrong[b, p] if wrong[b, p].any() else truth[b, p])
        x, y = pixel_of(rng, rows, columns)
        row, column = int((y + 0.5) // MASK_STRIDE), int((x + 0.5) // MASK_STRIDE)
        added.append((x, y))
        kinds.append(FOREGROUND_LABEL if truth[b, p, row, column] else BACKGROUND_LABEL)
    shape = prompts.labels.shape[:2]
    coords = torch.tensor(added, dtype=torch.float32).view(*shape, 1, 2)
    labels = torch.tensor(kinds).view(*shape, 1)
    return CropPrompts(torch.cat([coords, prompts.coords], 2), torch.cat([labels, prompts.labels], 2))
