"""Everything mode: masks for a grid of points over a photo, filtered and deduplicated.

The steps, their order and defaults are those of SAM's ``SamAutomaticMaskGenerator`` (arXiv 2304.02643, appendix B;
Apache-2.0): grid, three masks a point, filters on predicted IoU and stability, box suppression in a crop and then among
crops, small regions last. Masks wait as packed bits of their own boxes, so that a thousand candidates on a 12-megapixel
photo fit into memory.

What is not needed is not computed, and no mask changes by it: a prompt none of whose masks has the predicted IoU is not
drawn, and a mask is brought to the photo's size only where it can be (``upscaling``).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.ops import nms

from reference.crops import crop_boxes, point_grid, touches_crop_edge
from reference.errors import PromptError
from reference.everything_options import EverythingOptions, GivenPrompts
from reference.found_mask import Box, FoundMask, outermost, pack
from reference.images import as_rgb
from reference.out_of_memory import is_out_of_memory
from reference.predictor import BasePredictor
from reference.small_regions import without_small_regions
from reference.upscaling import Upscaler
from reference.values import MASK_THRESHOLD

Floats = NDArray[np.float64]
LOG = logging.getLogger(__name__)
FIRST_PART = 4  # hierarchical: the first grid has a quarter of the points a side


def segment_everything(
    predictor: BasePredictor,
    image: NDArray[np.uint8] | Image.Image | None = None,
    options: EverythingOptions | None = None,
    prompts: GivenPrompts | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[FoundMask]:
    """Find all masks of a photo.

    Args:
        predictor: the reference or an artifact. Afterwards it has the whole photo set.
        image: as for ``predictor.set_image``; None for the photo that is set, which cannot be cropped.
        options: what to ask and keep.
        prompts: to be asked instead of a grid; then there are no crops.
        progress: told after each batch how many prompts are done, and of how many.

    Returns:
        the masks, largest first.

    Raises:
        ImageError: if it is no image.
        PromptError: without an image, crops of a photo that was not given, or prompts that are none.
    """
    options = options or EverythingOptions()
    photo = None if image is None else as_rgb(image)
    if prompts is not None and options.crop_n_layers:
        raise PromptError("crops have grids of their own; give no prompts, or set crop_n_layers=0")
    if photo is not None:
        predictor.set_image(photo)
    elif options.crop_n_layers:
        raise PromptError("crops need the photo itself; pass image, or set crop_n_layers=0")
    if predictor.original_size is None:
        raise PromptError("no image is set; pass image, or call set_image(image) first")
    size, embeddings = predictor.original_size, predictor.image_embeddings
    crops = list(crop_boxes(size, options.crop_n_layers, options.crop_overlap_ratio))
    grids = [options.points_per_side // options.crop_n_points_downscale_factor**layer for layer, _ in crops]
    done, total = 0, sum(side**2 for side in grids) if prompts is None else len(prompts)

    found: list[FoundMask] = []
    try:
        for (layer, crop), per_side in zip(crops, grids, strict=True):
            if layer and photo is not None:
                x0, y0, x1, y1 = crop
                predictor.set_image(photo[y0:y1, x0:x1])
            in_crop = _Crop(predictor, options, crop, size)
            candidates: list[FoundMask] = []
            for count, masks in in_crop.ask(prompts) if prompts is not None else in_crop.ask_grid(per_side):
                candidates += masks
                done += count
                progress(done, total)
            scores = [mask.iou_prediction for mask in candidates]
            found += _suppress(candidates, scores, options.box_nms_thresh)
    finally:
        predictor.original_size, predictor.image_embeddings = size, embeddings
    if options.crop_n_layers:
        found = _suppress(found, [1 / _area(mask.crop) for mask in found], options.crop_nms_thresh)
    if options.min_mask_region_area > 0:
        found = _cleaned(found, options)
    return sorted(found, key=lambda mask: mask.area, reverse=True)


def stability_score(logits: NDArray[np.float32], offset: float) -> float:
    """How little a mask changes with its threshold: the area at ``+offset`` over the area at ``-offset``.

    Args:
        logits: of a photo, or of a part of it outside which all are at most ``-offset``.

    Returns:
        0 to 1; 0 where even the larger area is empty.
    """
    larger = np.count_nonzero(logits > -offset)
    return float(np.count_nonzero(logits > offset) / larger) if larger else 0.0


class _Crop:
    """One crop, which the predictor has set, and what is asked about it.

    Args:
        crop: XYXY in the photo.
        size: (H, W) of the photo.
    """

    def __init__(self, predictor: BasePredictor, options: EverythingOptions, crop: Box, size: tuple[int, int]) -> None:
        self._predictor, self._options, self._crop, self._photo_size = predictor, options, crop, size
        self._size = (crop[3] - crop[1], crop[2] - crop[0])
        self._upscaler = Upscaler(self._size, predictor.image_size)
        self._floor = min(MASK_THRESHOLD, MASK_THRESHOLD - options.stability_score_offset)
        self._sure = np.zeros((predictor.image_size // 4,) * 2, bool)  # of the logits' pixels
        self._lock = Lock()
        self._told = False  # that memory is short

    def ask_grid(self, per_side: int) -> Iterator[tuple[int, list[FoundMask]]]:
        """How many points were asked, and what they gave; a batch at a time."""
        points = point_grid(per_side)
        first = np.ones(len(points), bool)
        if self._options.hierarchical and per_side >= 2 * FIRST_PART:
            chosen = np.arange(per_side) % FIRST_PART == FIRST_PART // 2
            first = (chosen[:, None] & chosen).reshape(-1)
        width, height = self._size[1], self._size[0]
        yield from self.ask(GivenPrompts(points[first] * (width, height)))
        rest = points[~first]
        # Crop pixels to the logits' own: the crop takes its part of the model frame.
        scale = self._predictor.image_size / 4 / max(self._size)
        x, y = (rest * (width, height) * scale).astype(np.int64).T
        open_yet = ~self._sure[np.minimum(y, len(self._sure) - 1), np.minimum(x, len(self._sure) - 1)]
        if not open_yet.all():
            yield int((~open_yet).sum()), []
        yield from self.ask(GivenPrompts(rest[open_yet] * (width, height)))

    def ask(self, prompts: GivenPrompts) -> Iterator[tuple[int, list[FoundMask]]]:
        """As ``ask_grid``, prompts in the crop's pixels."""
        at_once = min(self._options.points_per_batch, self._predictor.best_batch)
        batches = [
            (kind, given[start : start + at_once])
            for kind, given in (("points", prompts.points), ("boxes", prompts.boxes))
            for start in range(0, len(given), at_once)
        ]
        if self._predictor.concurrency == 1 or len(batches) < 2:
            for kind, batch in batches:
                yield len(batch), self._masks(kind, batch)
            return
        with ThreadPoolExecutor(self._predictor.concurrency) as threads:
            try:
                for (_, batch), masks in zip(batches, threads.map(lambda job: self._masks(*job), batches), strict=True):
                    yield len(batch), masks
            finally:
                threads.shutdown(cancel_futures=True)

    def _masks(self, kind: str, batch: Floats) -> list[FoundMask]:
        """Ask a batch and filter what comes."""
        try:
            return list(self._masks_of(kind, batch))
        except Exception as error:  # engines have errors of their own for too little memory
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
            half = len(batch) // 2
            if not self._told:
                self._told = True
                LOG.warning("too little memory for %d prompts at a time; going on with %d and less", len(batch), half)
            return self._masks(kind, batch[:half]) + self._masks(kind, batch[half:])

    def _masks_of(self, kind: str, batch: Floats) -> Iterator[FoundMask]:
        if kind == "boxes":
            answer = self._predictor.answer(boxes=batch, multimask_output=False)
            centres = (batch[:, :2] + batch[:, 2:]) / 2
        else:
            answer, centres = self._predictor.answer(batch[:, None], np.ones((len(batch), 1))), batch
        least = self._options.pred_iou_thresh
        for prompt, (iou, (x, y)) in enumerate(zip(answer.iou_predictions, centres.tolist(), strict=True)):
            rows = np.flatnonzero(iou > least) if least > 0 else np.arange(len(iou))
            if len(rows):
                for row, logits in zip(rows, answer.draw(prompt, rows), strict=True):
                    mask = self._mask(logits, float(iou[row]), (x, y))
                    if mask is not None:
                        yield mask

    def _mask(self, low_res: NDArray[np.float32], iou: float, point: tuple[float, float]) -> FoundMask | None:
        """The mask of (S/4, S/4) logits, if it is stable and not cut by the crop."""
        x0, y0 = self._crop[:2]
        region = self._upscaler.region(low_res, self._floor)
        stability = stability_score(region.logits, self._options.stability_score_offset)
        if self._options.stability_score_thresh > 0 and stability < self._options.stability_score_thresh:
            return None
        mask = region.logits > MASK_THRESHOLD
        area, inner = int(np.count_nonzero(mask)), outermost(mask)
        left, top = (region.left, region.top) if area else (0, 0)
        box = (inner[0] + left + x0, inner[1] + top + y0, inner[2] + left + x0, inner[3] + top + y0)
        if touches_crop_edge(box, self._crop, self._photo_size):
            return None
        if self._options.hierarchical:
            with self._lock:
                self._sure |= low_res > self._options.sure_logit
        return FoundMask(
            box=box,
            area=area,
            iou_prediction=iou,
            stability_score=stability,
            point=(point[0] + x0, point[1] + y0),
            crop=self._crop,
            _photo_size=self._photo_size,
            _packed=pack(mask, inner) if area else np.zeros((1, 1), np.uint8),
        )


def _cleaned(masks: Sequence[FoundMask], options: EverythingOptions) -> list[FoundMask]:
    """Without small holes and islands; of masks that have become alike, one that was not changed stays."""
    cleaned, scores = [], []
    for found in masks:
        mask, changed = without_small_regions(found.mask, options.min_mask_region_area)
        cleaned.append(found.with_mask(mask) if changed else found)
        scores.append(0.0 if changed else 1.0)
    return _suppress(cleaned, scores, max(options.box_nms_thresh, options.crop_nms_thresh))


def _suppress(masks: Sequence[FoundMask], scores: Sequence[float], overlap: float) -> list[FoundMask]:
    """Of masks whose boxes overlap by more than that IoU keep the one with the highest score, best first."""
    boxes = torch.tensor([mask.box for mask in masks], dtype=torch.float32).reshape(-1, 4)
    return [masks[i] for i in nms(boxes, torch.tensor(scores, dtype=torch.float32), overlap).tolist()]


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
