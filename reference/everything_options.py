"""What everything mode is asked: how densely, what to keep, and prompts instead of a grid. Imports no PyTorch."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reference.errors import PromptError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EverythingOptions:
    """How densely to ask, and what to keep; the names are those of ``SamAutomaticMaskGenerator``.

    Attributes:
        points_per_side: of the square grid over the photo or crop.
        points_per_batch: prompts decoded at a time, at most; memory against speed.
        pred_iou_thresh: keep masks with a predicted IoU above; 0 keeps all.
        stability_score_thresh: keep masks with a stability score of at least this; 0 keeps all.
        stability_score_offset: logits up and down from the mask threshold, see ``stability_score``.
        box_nms_thresh: IoU of two boxes above which the mask with the lower predicted IoU goes.
        crop_n_layers: layer i repeats it on (2 ** i) ** 2 overlapping crops, for small objects.
        crop_nms_thresh: as ``box_nms_thresh``, among crops; the mask from the smaller crop stays.
        crop_overlap_ratio: overlap of the crops as a part of the photo's shorter side.
        crop_n_points_downscale_factor: the grid of layer i has ``points_per_side // factor ** i`` points a side.
        min_mask_region_area: holes and islands of fewer pixels go; 0 keeps them.
        hierarchical: ask a quarter of the points a side first, then only where no mask was found that is sure
            (arXiv 2312.13789); faster, and some masks are missed.
        sure_logit: hierarchical: a pixel whose logit is above is done.
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
    min_mask_region_area: int = 0
    hierarchical: bool = False
    sure_logit: float = 8.5

    def __post_init__(self) -> None:
        last_grid = self.points_per_side // self.crop_n_points_downscale_factor**self.crop_n_layers
        if min(last_grid, self.points_per_batch) < 1 or self.crop_n_layers < 0:
            raise PromptError(f"got {self}, expected at least one point a side in every layer and one a batch")


@dataclass(frozen=True, eq=False)
class GivenPrompts:
    """Prompts from elsewhere, such as a detector, instead of a grid; in the photo's pixels.

    Attributes:
        points: (N, 2) x, y; each gives up to three masks, as those of the grid do.
        boxes: (M, 4) XYXY; each gives one mask.
    """

    points: Floats = field(default_factory=lambda: np.empty((0, 2)))
    boxes: Floats = field(default_factory=lambda: np.empty((0, 4)))

    def __len__(self) -> int:
        return len(self.points) + len(self.boxes)
