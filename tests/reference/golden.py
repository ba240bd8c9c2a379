"""The recorded outputs of the official implementation, see ``tests/data/README.md``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.images import read_image

TESTS = Path(__file__).parent.parent
PHOTOS = TESTS.parent / "mobilesam_export" / "photos"
OUTPUTS: dict[str, NDArray[Any]] = dict(np.load(TESTS / "data" / "golden.npz"))
CASES: list[dict[str, Any]] = json.loads(str(OUTPUTS["meta"]))["cases"]
OFFICIAL_SHAPES: dict[str, tuple[int, ...]] = {
    name: tuple(shape)
    for name, shape in json.loads((TESTS / "data" / "mobile_sam_state_dict.json").read_text()).items()
}


@dataclass(frozen=True)
class Rows:
    """What one prompt gave: the single-mask row, then (but for a refinement) the three multimask rows."""

    masks: NDArray[np.bool_]
    iou_predictions: NDArray[np.float32]
    every_2nd_logit: NDArray[np.float32]


def rows(key: str) -> Rows:
    """The recorded rows of a case such as ``coffee/box``."""
    width = photo(key).shape[1]
    packed = OUTPUTS[f"{key}/masks_packed"]
    masks = np.unpackbits(packed, axis=-1, count=width).astype(bool)
    return Rows(
        masks.reshape(-1, *masks.shape[-2:]),
        OUTPUTS[f"{key}/iou_predictions"].reshape(-1),
        OUTPUTS[f"{key}/low_res_logits_every_2nd"].astype(np.float32),
    )


def photo(key: str) -> NDArray[np.uint8]:
    """The photo of a case."""
    return read_image(PHOTOS / f"{key.partition('/')[0]}.png")


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks, 1 if both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
