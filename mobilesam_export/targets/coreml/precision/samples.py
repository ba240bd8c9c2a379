"""Inputs to calibrate and measure a pair of Core ML packages with: photos, mirrored, and prompts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.contract import PAD_COLOUR_8BIT, PointLabel
from mobilesam_export.model_frame import mirrored_photos, model_frame
from mobilesam_export.point_slots import fill_slots
from mobilesam_export.targets.coreml.executor import MLProgram

Feeds = dict[str, NDArray[Any]]


def encoder_samples(image_size: int, limit: int | None = None, photos: Sequence[Path] | None = None) -> list[Feeds]:
    """One feed for each photo; of the bundled ones if None."""
    return [
        {"image": model_frame(photo, image_size, pad_colour=PAD_COLOUR_8BIT)}
        for photo in itertools.islice(mirrored_photos(image_size, photos), limit)
    ]


def decoder_samples(encoder: MLProgram, decoder: MLProgram, images: list[Feeds]) -> Iterator[Feeds]:
    """For each image a click, a box with two clicks, a refinement of that answer, and that mask alone."""
    slots = decoder.inputs["point_labels"].shape[1] or 8
    side = encoder.inputs["image"].shape[-1]
    assert side is not None
    for feeds in images:
        embeddings = encoder.run(feeds)["image_embeddings"]
        # In parts of the model frame; whatever lies there, inside the photo or on its padding.
        click = [(0.45, 0.3, PointLabel.FOREGROUND), (0.0, 0.0, PointLabel.PADDING)]
        box = [
            (0.2, 0.1, PointLabel.BOX_TOP_LEFT),
            (0.75, 0.6, PointLabel.BOX_BOTTOM_RIGHT),
            (0.5, 0.4, PointLabel.FOREGROUND),
            (0.25, 0.5, PointLabel.BACKGROUND),
        ]
        first = _prompt(embeddings, click, slots, side, None)
        yield first
        answer = decoder.run(first)["low_res_masks"][:, :1]
        yield _prompt(embeddings, box, slots, side, None)
        yield _prompt(embeddings, click, slots, side, answer)
        yield _prompt(embeddings, [], slots, side, answer)


def _prompt(
    embeddings: NDArray[Any],
    points: list[tuple[float, float, PointLabel]],
    slots: int,
    side: int,
    mask: NDArray[Any] | None,
) -> Feeds:
    given = np.array(points[:slots], np.float64).reshape(1, -1, 3)  # x, y, label
    coords, labels = fill_slots(given[..., :2] * side, given[..., 2], slots)
    return {
        "image_embeddings": embeddings,
        "point_coords": coords,
        "point_labels": labels,
        "mask_input": np.zeros((1, 1, side // 4, side // 4), np.float32) if mask is None else mask,
        "has_mask_input": np.array([mask is not None], np.float32),
    }
