"""Check the prompts that a user gives, in the photo's pixels, and bring them to the model frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reference.errors import PromptError
from reference.transforms import boxes_to_model_frame, to_model_frame

LARGEST_LOGIT = 1e9  # of mask_input; float32 has room for its square
# Of one prompt: every point attends to every cell of the embedding, 130 kB a point and layer at 1024.
MOST_POINTS = 1000
DECODING_BYTES = 256 * 10**6  # of the decoder's intermediate results, whatever the number of prompts
BYTES_A_CELL, BYTES_A_CELL_AND_POINT = 6_700, 64
Numbers = NDArray[np.float64] | None
_ORDER = "x0, y0, x1, y1 with x0 < x1 and y0 < y1"


@dataclass(frozen=True)
class Prompts:
    """B checked prompts in the model frame, float32; what is absent is None.

    Attributes:
        points: (B, N, 2) x, y.
        labels: (B, N), 0 background or 1 foreground (-1 padding is accepted).
        boxes: (B, 4) XYXY.
        masks: (B, 1, S/4, S/4) logits.
    """

    points: NDArray[np.float32] | None
    labels: NDArray[np.float32] | None
    boxes: NDArray[np.float32] | None
    masks: NDArray[np.float32] | None

    def __len__(self) -> int:
        return next(len(a) for a in (self.points, self.boxes, self.masks) if a is not None)

    def __getitem__(self, rows: slice) -> "Prompts":
        """The prompts of some rows."""
        arrays = (self.points, self.labels, self.boxes, self.masks)
        return Prompts(*(None if a is None else a[rows] for a in arrays))


def check_prompts(
    point_coords: ArrayLike | None,
    point_labels: ArrayLike | None,
    boxes: ArrayLike | None,
    mask_input: ArrayLike | None,
    size: tuple[int, int],
    image_size: int,
) -> Prompts:
    """Check a batch of prompts in image-frame pixels and bring it to the model frame.

    Args:
        point_coords, point_labels, boxes, mask_input: see ``BasePredictor.predict_batch``.
        size: (H, W) of the photo.
        image_size: S.

    Raises:
        PromptError: with what was got and what was expected.
    """
    if point_coords is None and boxes is None and mask_input is None:
        raise PromptError("got no prompt; give point_coords with point_labels, a box, or mask_input")
    if (point_coords is None) != (point_labels is None):
        raise PromptError("point_coords and point_labels go together; give one label (1 or 0) for every point")
    points_array = labels_array = boxes_array = masks_array = None
    if point_coords is not None and point_labels is not None:
        points_array = finite("point_coords", point_coords, ("B", "N", 2), "N points x, y for each of B prompts")
        labels_array = finite("point_labels", point_labels, points_array.shape[:2], "a label for every point")
        _require_labels(labels_array)
        if points_array.shape[1] == 0:
            raise PromptError("got an empty list of points; leave point_coords out, or give at least one point")
        if points_array.shape[1] > MOST_POINTS:
            raise PromptError(
                f"got {points_array.shape[1]:,} points in one prompt, expected at most {MOST_POINTS:,}; give separate "
                "objects as separate prompts to predict_batch, shape (B, N, 2)"
            )
        _require_near("point_coords", points_array, size)
        points_array = to_model_frame(points_array, size, image_size)
    if boxes is not None:
        boxes_array = finite("boxes", boxes, ("B", 4), "x0, y0, x1, y1 for each of B prompts")
        _require_near("boxes", boxes_array.reshape(-1, 2, 2), size)
        _require_area(boxes_array)
        boxes_array = boxes_to_model_frame(boxes_array, size, image_size)
    if mask_input is not None:
        low_res = image_size // 4
        masks_array = finite("mask_input", mask_input, ("B", 1, low_res, low_res), "logits of an earlier prediction")
        if masks_array.size and abs(masks_array).max() > LARGEST_LOGIT:
            worst = masks_array.flat[abs(masks_array).argmax()]
            raise PromptError(f"mask_input holds {worst:g}, expected logits within {LARGEST_LOGIT:g} of zero")
    batches = {len(a) for a in (points_array, boxes_array, masks_array) if a is not None}
    if len(batches) != 1 or 0 in batches:
        raise PromptError(
            f"got batches of {sorted(batches)} prompts, expected one or more, as many for points as for boxes and masks"
        )
    return Prompts(
        *(None if a is None else a.astype(np.float32) for a in (points_array, labels_array, boxes_array, masks_array))
    )


def prompts_at_a_time(prompts: Prompts, image_size: int) -> int:
    """How many prompts of this kind may be decoded together within ``DECODING_BYTES``, one at least.

    The decoder needs about 6,700 bytes a cell of the embedding (keys, upscaling, masks: 27 MB at 1024; measured) and
    64 a cell and point: the scores of 8 heads and their softmax in float32.
    """
    points = 0 if prompts.points is None else prompts.points.shape[1]
    each = (image_size // 16) ** 2 * (BYTES_A_CELL + BYTES_A_CELL_AND_POINT * points)
    return max(1, DECODING_BYTES // each)


def one_as_batch(
    point_coords: ArrayLike | None,
    point_labels: ArrayLike | None,
    box: ArrayLike | None,
    mask_input: ArrayLike | None,
    image_size: int,
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """The arrays of one prompt, see ``BasePredictor.predict``, as a batch of one; shapes are told as of one prompt.

    Raises:
        PromptError: an array of another shape, or that holds something else than numbers.
    """
    points = labels = corners = logits = None
    if point_coords is not None:
        points = finite("point_coords", point_coords, ("N", 2), "N points x, y, such as [[300, 150]]")
        if point_labels is not None:
            labels = finite("point_labels", point_labels, (len(points),), "a label for every point, such as [1]")
    elif point_labels is not None:
        labels = numbers("point_labels", point_labels)
    if box is not None:
        corners = numbers("box", box)
        corners = finite("box", corners.reshape(-1) if corners.size == 4 else corners, (4,), "x0, y0, x1, y1")
    if mask_input is not None:
        low_res = image_size // 4
        meaning = "one row of an earlier answer's low_res_masks, such as low_res_masks[:1]"
        logits = finite("mask_input", mask_input, (1, low_res, low_res), meaning)
    points, labels, corners, logits = (None if a is None else a[None] for a in (points, labels, corners, logits))
    return points, labels, corners, logits


def numbers(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """An array of real numbers; text, dates and complex numbers are none.

    Raises:
        PromptError: it is something else.
    """
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biufO":
            raise PromptError(f"got {name} of dtype {array.dtype}, expected real numbers; convert them first")
        return array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # RuntimeError: a tensor that needs detach()
        if isinstance(error, PromptError):
            raise
        raise PromptError(f"{name} is not an array of numbers ({error})") from error


def finite(name: str, value: ArrayLike, shape: Sequence[int | str], meaning: str) -> NDArray[np.float64]:
    """Finite numbers of a shape, in which a letter stands for any length.

    Raises:
        PromptError: they are not, with the ``meaning`` of what was expected.
    """
    array = numbers(name, value)
    fits = len(shape) == array.ndim and all(
        isinstance(n, str) or n == m for n, m in zip(shape, array.shape, strict=True)
    )
    if not fits:
        expected = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise PromptError(f"got {name} of shape {array.shape}, expected ({expected}): {meaning}")
    if not np.isfinite(array).all():
        raise PromptError(f"{name} holds NaN or infinite numbers; expected finite ones")
    return array


def _require_labels(labels: NDArray[np.float64]) -> None:
    strange = sorted(set(labels[~np.isin(labels, (-1, 0, 1))].tolist()))
    if strange:
        shown = ", ".join(f"{label:g}" for label in strange[:3]) + (", ..." if len(strange) > 3 else "")
        raise PromptError(f"got point label {shown}, expected 1 foreground or 0 background; give a box as box=")


def _require_near(name: str, points: NDArray[np.float64], size: tuple[int, int]) -> None:
    """(..., 2) x, y may lie outside the photo, as in SAM, but by no more than its longest side."""
    height, width = size
    reach = max(size)
    far = (abs(points - np.array([width, height]) / 2) > np.array([width, height]) / 2 + reach).any(axis=-1)
    if far.any():
        x, y = points[far][0]
        raise PromptError(
            f"{name} holds ({x:g}, {y:g}), expected pixels of the photo, {width} wide and {height} high, or near it; "
            "scale the coordinates to the photo that was given to set_image"
        )


def _require_area(boxes: NDArray[np.float64]) -> None:
    bad = ~((boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3]))
    if bad.any():
        raise PromptError(
            f"got box {', '.join(f'{n:g}' for n in boxes[bad][0])}, expected {_ORDER}; give top-left, then bottom-right"
        )
