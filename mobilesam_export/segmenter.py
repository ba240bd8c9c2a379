"""The host API that Swift, Kotlin and TypeScript have, in Python: set_image, predict, reset. See apps/README.md."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilesam_export.bundle.manifest import FILE_NAME
from mobilesam_export.bundle.predictor import BundlePredictor, load_bundle
from mobilesam_export.contract import CONTRACT_VERSION, MASK_COUNT
from reference.errors import ImageError
from reference.images import as_rgb
from reference.predictor import BasePredictor
from reference.transforms import logits_to_masks

LARGEST_PHOTO_PIXELS = 64_000_000
Point = tuple[float, float] | tuple[float, float, int]
Box = tuple[float, float, float, float]


class ErrorCode(StrEnum):
    """What went wrong, the same strings in every host."""

    NO_IMAGE = "no_image"
    NO_PROMPT = "no_prompt"
    POINT_OUTSIDE = "point_outside"
    POINT_LABEL = "point_label"
    BOX_CORNERS = "box_corners"
    TOO_MANY_POINTS = "too_many_points"
    MASK_SIZE = "mask_size"
    IMAGE = "image"
    CONTRACT_VERSION = "contract_version"
    CLOSED = "closed"


class SegmenterError(ValueError):
    """A call that cannot be answered; the segmenter stays usable."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask at the photo's size.

    Attributes:
        pixels: (H, W).
        logits: (S/4, S/4), what ``previous_mask`` hands to the decoder.
    """

    pixels: NDArray[np.bool_]
    logits: NDArray[np.float32]


class Segmenter:
    """One photo, many prompts, one mask for each.

    Args:
        predictor: the reference, or an artifact from ``load_bundle``.
    """

    def __init__(self, predictor: BasePredictor) -> None:
        self._predictor: BasePredictor | None = predictor

    @classmethod
    def open(cls, bundle: str | Path, target: str | None = None) -> Self:
        """Over a bundle's files.

        Raises:
            SegmenterError: a bundle of another contract version.
            ExportError: no bundle, a target that it lacks, a damaged file.
        """
        _check_contract_version(Path(bundle) / FILE_NAME)
        return cls(load_bundle(bundle, target))

    def set_image(self, photo: NDArray[np.uint8] | Image.Image) -> None:
        """Embed a photo: (H, W, 3) uint8 RGB, or a PIL image (turned upright).

        Raises:
            SegmenterError: if it is none, or has more than ``LARGEST_PHOTO_PIXELS``; the earlier photo stays set.
        """
        predictor = self._open()
        size = photo.size if isinstance(photo, Image.Image) else photo.shape[1::-1]
        if len(size) == 2 and size[0] * size[1] > LARGEST_PHOTO_PIXELS:
            raise SegmenterError(
                ErrorCode.IMAGE, f"got a photo of {size[0]} x {size[1]} pixels, expected at most 64 million; shrink it"
            )
        try:
            predictor.set_image(as_rgb(photo))
        except ImageError as error:
            raise SegmenterError(ErrorCode.IMAGE, str(error)) from error

    def predict(
        self, points: Sequence[Point] = (), box: Box | None = None, previous_mask: Mask | None = None
    ) -> tuple[Mask, float]:
        """The mask that a prompt means, and the model's own estimate of its IoU.

        One foreground point and nothing else gives the best of the three alternatives, everything else row 0.

        Args:
            points: x, y in the photo's pixels, and a label: 1 on the object (default), 0 not on it.
            box: XYXY in the photo's pixels.
            previous_mask: to be refined.

        Raises:
            SegmenterError: see ``ErrorCode``.
        """
        predictor = self._open()
        if predictor.original_size is None:
            raise SegmenterError(ErrorCode.NO_IMAGE, "no photo is set; call set_image(photo) first")
        labelled = [(float(p[0]), float(p[1]), p[2] if len(p) == 3 else 1) for p in points]
        low = predictor.image_size // 4
        logits = None if previous_mask is None else previous_mask.logits
        slots = predictor.runtime.max_points if isinstance(predictor, BundlePredictor) else None
        check(labelled, box, logits is not None, predictor.original_size, slots)
        if logits is not None and logits.shape != (low, low):
            raise SegmenterError(
                ErrorCode.MASK_SIZE,
                f"got a previous mask with logits of {logits.shape}, expected ({low}, {low}); pass one from this model",
            )
        several = is_ambiguous(labelled, box, logits is not None)
        iou, low_res = predictor.predict_logits(
            [[p[:2] for p in labelled]] if labelled else None,
            [[p[2] for p in labelled]] if labelled else None,
            None if box is None else [box],
            None if logits is None else logits[None, None],
            multimask_output=several,
        )
        row = int(iou[0].argmax())
        mask = logits_to_masks(low_res[:, row : row + 1], predictor.original_size, predictor.image_size)[0, 0]
        return Mask(mask, low_res[0, row]), float(iou[0, row])

    def reset(self) -> None:
        """Forget the photo."""
        predictor = self._open()
        predictor.original_size = predictor.image_embeddings = None

    def close(self) -> None:
        """Release the models."""
        if isinstance(self._predictor, BundlePredictor):
            self._predictor.close()
        self._predictor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> BasePredictor:
        if self._predictor is None:
            raise SegmenterError(ErrorCode.CLOSED, "the segmenter is closed; open another")
        return self._predictor


def _check_contract_version(manifest: Path) -> None:
    try:
        version = json.loads(manifest.read_text(encoding="utf-8"))["contract_version"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # ``load_bundle`` says what is wrong with it
    if version != CONTRACT_VERSION:
        raise SegmenterError(
            ErrorCode.CONTRACT_VERSION,
            f"the models follow contract version {str(version)[:40]}, this code {CONTRACT_VERSION}; export them again",
        )


def is_ambiguous(points: Sequence[tuple[float, float, int]], box: Box | None, has_mask: bool) -> bool:
    """Whether the best of the three alternatives is wanted: one foreground point and nothing else."""
    return len(points) == 1 and points[0][2] == 1 and box is None and not has_mask


def best_row(multimask: bool, iou_predictions: Sequence[float]) -> int:
    """Which of the decoder's four masks to show; the first of equal ones."""
    return max(range(1, MASK_COUNT), key=lambda row: iou_predictions[row]) if multimask else 0


def check(
    points: Sequence[tuple[float, float, int]],
    box: Box | None,
    has_mask: bool,
    size: tuple[int, int],
    max_points: int | None,
) -> None:
    """Refuse a prompt without meaning on a photo of (H, W) ``size``; the order of checks is part of the host API.

    Raises:
        SegmenterError: with its code.
    """
    height, width = size
    if not points and box is None and not has_mask:
        raise SegmenterError(ErrorCode.NO_PROMPT, "got no prompt; give points, a box or a previous mask")
    corners = [] if box is None else [box[:2], box[2:]]
    for x, y in [*((p[0], p[1]) for p in points), *corners]:
        if not (0 <= x <= width and 0 <= y <= height):  # NaN is not inside
            raise SegmenterError(
                ErrorCode.POINT_OUTSIDE,
                f"({x:g}, {y:g}) is outside the photo of {width} x {height} pixels; give points inside it",
            )
    for _, _, label in points:
        if label not in (0, 1):
            raise SegmenterError(
                ErrorCode.POINT_LABEL, f"got point label {label}, expected 1 on the object or 0 not on it"
            )
    if box is not None and not (box[0] < box[2] and box[1] < box[3]):
        raise SegmenterError(
            ErrorCode.BOX_CORNERS,
            f"got box {', '.join(f'{n:g}' for n in box)}, expected x0 < x1 and y0 < y1; swap its corners",
        )
    slots = len(points) + (2 if box is not None else 1 if points else 0)
    if max_points is not None and slots > max_points:
        raise SegmenterError(
            ErrorCode.TOO_MANY_POINTS,
            f"got a prompt of {slots} slots (a box takes two, a prompt without box one more than its points), "
            f"the decoder holds {max_points}; give fewer points",
        )
