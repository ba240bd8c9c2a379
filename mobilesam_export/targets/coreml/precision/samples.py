"""Inputs to calibrate and measure a pair of Core ML packages with: photos, mirrored, and prompts.

Mirrored, so that the photos which judge a recipe (parity) are not the ones that it was calibrated on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.contract import PAD_COLOUR_8BIT, PointLabel
from mobilesam_export.photos import PHOTO_DIR
from mobilesam_export.targets.coreml.executor import MLProgram
from reference.images import read_image
from reference.transforms import resize_longest_side, resized_size

Feeds = dict[str, NDArray[Any]]


def encoder_samples(image_size: int, limit: int | None = None, photos: Sequence[Path] | None = None) -> list[Feeds]:
    """One feed for each photo; of the bundled ones if None."""
    paths = sorted(PHOTO_DIR.glob("*.png")) if photos is None else photos
    return [{"image": _model_frame(read_image(path)[:, ::-1], image_size)} for path in paths[:limit]]


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
    points = points[:slots]
    coords = np.zeros((1, slots, 2), np.float32)
    labels = np.full((1, slots), float(PointLabel.ABSENT), np.float32)
    for slot, (x, y, label) in enumerate(points):
        coords[0, slot] = x * side, y * side
        labels[0, slot] = float(label)
    return {
        "image_embeddings": embeddings,
        "point_coords": coords,
        "point_labels": labels,
        "mask_input": np.zeros((1, 1, side // 4, side // 4), np.float32) if mask is None else mask,
        "has_mask_input": np.array([mask is not None], np.float32),
    }


def _model_frame(photo: NDArray[np.uint8], image_size: int) -> NDArray[np.float32]:
    """(H, W, 3) as (1, 3, S, S) pixels of 0 to 255 with the 8-bit pad colour."""
    resized = resize_longest_side(np.ascontiguousarray(photo), image_size)
    height, width = resized_size((photo.shape[0], photo.shape[1]), image_size)
    framed = np.empty((1, 3, image_size, image_size), np.float32)
    framed[:] = np.array(PAD_COLOUR_8BIT, np.float32).reshape(3, 1, 1)
    framed[0, :, :height, :width] = resized.transpose(2, 0, 1)  # HWC -> CHW
    return framed
