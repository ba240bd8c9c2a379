"""Everything mode: masks for a grid of points over a photo, filtered and deduplicated.

The steps, their order and defaults are those of SAM's ``SamAutomaticMaskGenerator`` (arXiv 2304.02643,
appendix B; Apache-2.0), without its removal of small islands and holes: grid, three masks a point, filters
on predicted IoU and stability, box suppression in a crop and then among crops. Masks wait as packed bits of
their own boxes, so that a thousand candidates on a 12-megapixel photo fit into memory.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import nms

from reference.errors import PromptError
from reference.images import as_rgb
from reference.predictor import BasePredictor
from reference.transforms import upscale_logits
from reference.values import MASK_THRESHOLD

Box = tuple[int, int, int, int]
EDGE_TOLERANCE_PX = 20  # a mask that ends this close to a crop's edge was probably cut by it


@dataclass(frozen=True)
class EverythingOptions:
    """How densely to ask, and what to keep; the names are those of ``SamAutomaticMaskGenerator``.

    Attributes:
        points_per_side: of the square grid over the photo or crop.
        points_per_batch: prompts decoded at a time; memory against speed.
        pred_iou_thresh: keep masks with a predicted IoU above; 0 keeps all.
        stability_score_thresh: keep masks with a stability score of at least this; 0 keeps all.
        stability_score_offset: logits up and down from the mask threshold, see ``stability_score``.
        box_nms_thresh: IoU of two boxes above which the mask with the lower predicted IoU goes.
        crop_n_layers: layer i repeats it on (2 ** i) ** 2 overlapping crops, for small objects.
        crop_nms_thresh: as ``box_nms_thresh``, among crops; the mask from the smaller crop stays.
        crop_overlap_ratio: overlap of the crops as a part of the photo's shorter side.
        crop_n_points_downscale_factor: the grid of layer i has ``points_per_side // factor ** i`` points a side.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1

    def __post_init__(self) -> None:
        last_grid = self.points_per_side // self.crop_n_points_downscale_factor**self.crop_n_layers
        if min(last_grid, self.points_per_batch) < 1 or self.crop_n_layers < 0:
            raise PromptError(f"got {self}, expected at least one point a side in every layer and one a batch")


@dataclass(frozen=True, eq=False)
class FoundMask:
    """One mask of everything mode, all in the photo's pixels.

    Attributes:
        box: XYXY of its outermost pixels, both inclusive; a single corner for an empty mask.
        area: pixels in the mask.
        iou_prediction: the model's own estimate.
        stability_score: 0 to 1.
        point: x, y of the grid point that was asked.
        crop: XYXY of the crop it was found in, the last column and row exclusive.
    """

    box: Box
    area: int
    iou_prediction: float
    stability_score: float
    point: tuple[float, float]
    crop: Box
    _photo_size: tuple[int, int]
    _packed: NDArray[np.uint8]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) at the photo's size."""
        mask = np.zeros(self._photo_size, bool)
        if self.area:
            x0, y0, x1, y1 = self.box
            mask[y0 : y1 + 1, x0 : x1 + 1] = np.unpackbits(self._packed, axis=1, count=x1 + 1 - x0)
        return mask


def segment_everything(
    predictor: BasePredictor,
    image: NDArray[np.uint8] | Image.Image | None = None,
    options: EverythingOptions | None = None,
) -> list[FoundMask]:
    """Find all masks of a photo.

    Args:
        predictor: the reference or an artifact. Afterwards it has the whole photo set.
        image: as for ``predictor.set_image``; None for the photo that is set, which cannot be cropped.
        options: what to ask and keep.

    Returns:
        the masks, largest first.

    Raises:
        ImageError: if it is no image.
        PromptError: without an image, or crops of a photo that was not given.
    """
    options = options or EverythingOptions()
    photo = None if image is None else as_rgb(image)
    if photo is not None:
        predictor.set_image(photo)
    elif options.crop_n_layers:
        raise PromptError("crops need the photo itself; pass image, or set crop_n_layers=0")
    if predictor.original_size is None:
        raise PromptError("no image is set; pass image, or call set_image(image) first")
    size, embeddings = predictor.original_size, predictor.image_embeddings

    found: list[FoundMask] = []
    try:
        for layer, crop in crop_boxes(size, options.crop_n_layers, options.crop_overlap_ratio):
            if layer and photo is not None:
                x0, y0, x1, y1 = crop
                predictor.set_image(photo[y0:y1, x0:x1])
            per_side = options.points_per_side // options.crop_n_points_downscale_factor**layer
            candidates = list(_masks_in_crop(predictor, options, per_side, crop, size))
            scores = [mask.iou_prediction for mask in candidates]
            found += _suppress(candidates, scores, options.box_nms_thresh)
    finally:
        predictor.original_size, predictor.image_embeddings = size, embeddings
    if options.crop_n_layers:
        found = _suppress(found, [1 / _area(mask.crop) for mask in found], options.crop_nms_thresh)
    return sorted(found, key=lambda mask: mask.area, reverse=True)


def point_grid(per_side: int) -> NDArray[np.float64]:
    """(per_side ** 2, 2) x, y in 0 to 1, row by row: the centres of equal cells."""
    ticks = (np.arange(per_side) + 0.5) / per_side
    x, y = np.meshgrid(ticks, ticks)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def crop_boxes(size: tuple[int, int], layers: int, overlap_ratio: float) -> Iterator[tuple[int, Box]]:
    """The layer and XYXY box of every crop of a photo of (H, W) ``size``: the whole first, then 2 x 2, 4 x 4, ...

    The crops of a layer have one size but for those at the right and bottom, which end with the photo.
    """
    height, width = size
    yield 0, (0, 0, width, height)
    for layer in range(1, layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / per_side))
        crop_height, crop_width = (math.ceil((overlap * (per_side - 1) + side) / per_side) for side in size)
        for i, j in itertools.product(range(per_side), repeat=2):
            x0, y0 = (crop_width - overlap) * i, (crop_height - overlap) * j
            if x0 < width and y0 < height:  # of a few pixels not every crop gets one
                yield layer, (x0, y0, min(x0 + crop_width, width), min(y0 + crop_height, height))


def stability_score(logits: torch.Tensor, offset: float) -> float:
    """How little a mask changes with its threshold: the area at ``+offset`` over the area at ``-offset``.

    Args:
        logits: (H, W).

    Returns:
        0 to 1; 0 where even the larger area is empty.
    """
    larger = int((logits > -offset).sum())
    return int((logits > offset).sum()) / larger if larger else 0.0


def touches_crop_edge(box: Box, crop: Box, size: tuple[int, int]) -> bool:
    """Whether a box ends near an edge of its crop that is no edge of the photo (all in the photo's pixels)."""
    photo = (0, 0, size[1], size[0])
    return any(
        abs(end - edge) <= EDGE_TOLERANCE_PX < abs(end - photo_edge)
        for end, edge, photo_edge in zip(box, crop, photo, strict=True)
    )


def _masks_in_crop(
    predictor: BasePredictor, options: EverythingOptions, per_side: int, crop: Box, size: tuple[int, int]
) -> Iterator[FoundMask]:
    """Ask the grid of one crop, which the predictor has set, and filter what comes."""
    x0, y0, x1, y1 = crop
    crop_size = (y1 - y0, x1 - x0)
    points = point_grid(per_side) * (x1 - x0, y1 - y0)
    for start in range(0, len(points), options.points_per_batch):
        batch = points[start : start + options.points_per_batch]
        iou, low_res = predictor.predict_logits(batch[:, None], np.ones((len(batch), 1)))
        for b, c in itertools.product(range(iou.shape[0]), range(iou.shape[1])):
            if options.pred_iou_thresh > 0 and not iou[b, c] > options.pred_iou_thresh:
                continue
            one = torch.from_numpy(np.ascontiguousarray(low_res[b : b + 1, c : c + 1]))
            logits = upscale_logits(one, crop_size, predictor.image_size)[0, 0]
            stability = stability_score(logits, options.stability_score_offset)
            if options.stability_score_thresh > 0 and stability < options.stability_score_thresh:
                continue
            mask = (logits > MASK_THRESHOLD).numpy()
            inner = _outermost(mask)
            box = (inner[0] + x0, inner[1] + y0, inner[2] + x0, inner[3] + y0)
            if touches_crop_edge(box, crop, size):
                continue
            yield FoundMask(
                box=box,
                area=int(mask.sum()),
                iou_prediction=float(iou[b, c]),
                stability_score=stability,
                point=(float(batch[b, 0] + x0), float(batch[b, 1] + y0)),
                crop=crop,
                _photo_size=size,
                _packed=np.packbits(mask[inner[1] : inner[3] + 1, inner[0] : inner[2] + 1], axis=1),
            )


def _outermost(mask: NDArray[np.bool_]) -> Box:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])) if len(columns) else (0, 0, 0, 0)


def _suppress(masks: list[FoundMask], scores: list[float], overlap: float) -> list[FoundMask]:
    """Of masks whose boxes overlap by more than that IoU keep the one with the highest score, best first."""
    boxes = torch.tensor([mask.box for mask in masks], dtype=torch.float32).reshape(-1, 4)
    return [masks[i] for i in nms(boxes, torch.tensor(scores, dtype=torch.float32), overlap).tolist()]


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
