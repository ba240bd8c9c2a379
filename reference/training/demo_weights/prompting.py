"""Random prompts for a batch, drawn on the training device.

Every choice is an argmax over noise, so that a draw depends on nothing but the generator's seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reference.training.decode import CropPrompts
from reference.training.demo_weights.feeding import Batch
from reference.training.scenes.scene_cache import MASK_STRIDE
from reference.values import BACKGROUND_LABEL, BOX_BOTTOM_RIGHT, BOX_TOP_LEFT, FOREGROUND_LABEL, PADDING_LABEL

LEVEL_ODDS = (0.1, 0.8, 0.1)  # part, object, group: what a prompt means
ON_OBJECTS = 0.9  # share of places drawn evenly over objects; the rest evenly over pixels
LEAST_PIXELS = 20  # mask pixels of an object that is asked for
BOX_SHARE = 0.5  # of prompts with two tokens
JITTERED_BOXES, JITTER = 0.3, 0.05  # share of boxes that are not tight, and how much of a side theirs move


@dataclass(frozen=True)
class Asked:
    """P prompts on each of B crops, and what the four mask tokens should answer.

    Attributes:
        prompts: in pixels of the crops.
        meant: (B, P, h, w) bool, the mask that the prompt was made from.
        answers: (B, P, 4, h, w) bool. To a lone click tokens 1 to 3 answer part, object and group, token 0 what is
            meant; to any other prompt all answer what is meant.
        wanted: (B, P, h, w) bool, the mask that the predicted IoU of all tokens is about: the object for a lone click,
            so that the best of the three answers is the object; else what is meant.
    """

    prompts: CropPrompts
    meant: Tensor
    answers: Tensor
    wanted: Tensor


def places_of(batch: Batch, count: int, generator: torch.Generator) -> Tensor:
    """Draw (B, count) mask pixels, as flat indices."""
    objects = batch.ids[:, 1].flatten(1).long()  # (B, hw)
    b, pixels = objects.shape
    one = torch.ones(objects.shape, device=objects.device)
    area = torch.zeros(b, 256, device=objects.device).scatter_add(1, objects, one).gather(1, objects)
    thing = (objects >= batch.things[:, None]) & (area >= LEAST_PIXELS)
    weight = torch.where(thing, 1.0 / area.clamp(min=1), 0.0)
    weight = torch.where(thing.any(1, keepdim=True), weight, 1.0)
    noise = _uniform((b, count, pixels), generator)
    by_object = _uniform((b, count, 1), generator) < ON_OBJECTS
    # the smallest of exponential variables with these rates is each one with probability proportional to its rate
    race = -torch.log(noise.clamp(min=1e-7)) / torch.where(by_object, weight[:, None], 1.0).clamp(min=1e-12)
    return race.argmin(-1)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _pixel_in(masks: Tensor, generator: torch.Generator) -> Tensor:
    """A random flat pixel of each (..., h, w) mask; any pixel of an empty one."""
    flat = masks.flatten(-2)
    return (_uniform(tuple(flat.shape), generator) + flat).argmax(-1)


def coordinates(flat: Tensor, width: int, generator: torch.Generator) -> Tensor:
    """A random place, x and y in crop pixels, inside each mask pixel given by its flat index: (..., 2)."""
    at = torch.stack([flat % width, flat // width], -1)
    return (at + _uniform(tuple(at.shape), generator)) * MASK_STRIDE - 0.5


def tight_boxes(masks: Tensor) -> Tensor:
    """(..., 4) XYXY in crop pixels of (..., h, w) masks that are not empty."""
    columns, rows = masks.any(-2), masks.any(-1)
    low = [line.int().argmax(-1) for line in (columns, rows)]
    high = [line.shape[-1] - line.flip(-1).int().argmax(-1) for line in (columns, rows)]
    scale = float(MASK_STRIDE)
    return torch.stack([scale * low[0], scale * low[1], scale * high[0] - 1, scale * high[1] - 1], -1)


def ask(batch: Batch, count: int, three_tokens: bool, generator: torch.Generator) -> Asked:
    """Draw prompts for a batch.

    Args:
        batch: B crops.
        count: P, prompts a crop.
        three_tokens: click and click or click and box, instead of click and padding or a box alone.
        generator: on the batch's device.
    """
    b, _, h, w = batch.ids.shape
    flat = places_of(batch, count, generator)
    names = batch.ids.flatten(2).gather(2, flat[:, None].expand(-1, 3, -1)).transpose(1, 2)  # (B, P, 3)
    levels = batch.ids[:, None] == names[..., None, None]  # (B, P, 3, h, w)
    draw = _uniform((b, count), generator)
    level = (draw > LEVEL_ODDS[0]).long() + (draw > LEVEL_ODDS[0] + LEVEL_ODDS[1]).long()
    meant = levels.gather(2, level[:, :, None, None, None].expand(-1, -1, -1, h, w)).squeeze(2)
    click = coordinates(flat, w, generator)
    box = tight_boxes(meant)
    sides = (box[..., 2:] - box[..., :2]).repeat(1, 1, 2)
    noise = torch.randn(box.shape, generator=generator, device=box.device)
    loose = _uniform((b, count, 1), generator) < JITTERED_BOXES
    box = box + torch.where(loose, JITTER * noise, 0.0) * sides
    kind = _uniform((b, count), generator)
    label = torch.full((b, count), 0, device=box.device)
    if three_tokens:
        by_box = kind < 0.35
        inside = (kind < 0.7) | meant.flatten(2).all(-1)
        second = coordinates(_pixel_in(torch.where(inside[..., None, None], meant, ~meant), generator), w, generator)
        zero = torch.zeros_like(click)
        coords = torch.stack(
            [
                click,
                torch.where(by_box[..., None], box[..., :2], second),
                torch.where(by_box[..., None], box[..., 2:], zero),
            ],
            2,
        )
        labels = torch.stack(
            [
                label + FOREGROUND_LABEL,
                torch.where(by_box, BOX_TOP_LEFT, torch.where(inside, FOREGROUND_LABEL, BACKGROUND_LABEL)),
                torch.where(by_box, BOX_BOTTOM_RIGHT, PADDING_LABEL),
            ],
            2,
        )
        lone = torch.zeros_like(by_box)
    else:
        by_box = kind < BOX_SHARE
        lone = ~by_box
        coords = torch.stack(
            [torch.where(by_box[..., None], box[..., :2], click), torch.where(by_box[..., None], box[..., 2:], 0.0)], 2
        )
        labels = torch.stack(
            [
                torch.where(by_box, BOX_TOP_LEFT, FOREGROUND_LABEL),
                torch.where(by_box, BOX_BOTTOM_RIGHT, PADDING_LABEL),
            ],
            2,
        )
    three = torch.where(lone[..., None, None, None], levels, meant[:, :, None])
    answers = torch.cat([meant[:, :, None], three], 2)
    wanted = torch.where(lone[..., None, None], levels[:, :, 1], meant)
    return Asked(CropPrompts(coords, labels), meant, answers, wanted)


def corrected(asked: Asked, prompts: CropPrompts, logits: Tensor, generator: torch.Generator) -> CropPrompts:
    """Add a point where an answer was wrong: foreground where it missed, background where it took too much.

    Args:
        asked: what was meant.
        prompts: of the earlier round.
        logits: (B, P, h, w) of its answer.
        generator: on the same device.

    Returns:
        The prompts with one more point each, before the old ones.
    """
    wrong = (logits > 0) != asked.meant
    wrong = torch.where(wrong.flatten(2).any(-1)[..., None, None], wrong, asked.meant)
    flat = _pixel_in(wrong, generator)
    inside = asked.meant.flatten(2).gather(2, flat[..., None])
    coords = coordinates(flat, logits.shape[-1], generator)
    labels = torch.where(inside, FOREGROUND_LABEL, BACKGROUND_LABEL)
    return CropPrompts(torch.cat([coords[:, :, None], prompts.coords], 2), torch.cat([labels, prompts.labels], 2))


def without_points(prompts: CropPrompts) -> CropPrompts:
    """As many prompts with no point at all, for an earlier mask alone."""
    return CropPrompts(prompts.coords[:, :, :0], prompts.labels[:, :, :0])
