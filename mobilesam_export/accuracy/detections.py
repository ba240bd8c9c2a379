"""A detector's boxes, from a file in COCO's results format: ``image_id``, ``category_id``, ``bbox``, ``score`` each."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilesam_export.accuracy.coco import box_of
from mobilesam_export.errors import ExportError
from reference.coco_document import LARGEST_DOCUMENT_BYTES
from reference.regular_file import regular_file_size


@dataclass(frozen=True)
class Detection:
    """One box.

    Attributes:
        box: XYXY in the photo's pixels.
        score: the detector's.
    """

    category: int
    box: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True)
class Detections:
    """All boxes, by the photo's id as a string."""

    identity: str
    of_photo: dict[str, list[Detection]]


def read_detections(path: Path) -> Detections:
    """Read a results file.

    Raises:
        ExportError: it is none, with the first entry that is wrong.
    """
    regular_file_size(path, "file of detections (COCO's results)", LARGEST_DOCUMENT_BYTES, ExportError)
    content = path.read_bytes()
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path} is no JSON ({str(error).splitlines()[0][:200]}); give a results file") from error
    if not isinstance(found, list) or not found:
        raise ExportError(f"{path} has no list of detections; give a results file, such as ViTDet's for COCO")
    of_photo: dict[str, list[Detection]] = {}
    for number, entry in enumerate(found):
        try:
            of_photo.setdefault(str(entry["image_id"]), []).append(_detection(entry))
        except (ValueError, KeyError, TypeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ExportError(
                f"{path}: detection {number} has {reason}, expected image_id, category_id, bbox and score"
            ) from error
    return Detections(hashlib.sha256(content).hexdigest(), of_photo)


def _detection(entry: Any) -> Detection:
    category, score, box = entry["category_id"], entry["score"], box_of(entry["bbox"])
    if type(category) is not int or box is None:
        raise ValueError(f"a category_id of {str(category)[:40]}")
    if not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f"a score of {str(score)[:40]}")
    return Detection(category, box, float(score))
