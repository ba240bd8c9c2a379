"""AP of the masks that a detector's boxes give, by COCO's own program (pycocotools, ``segm``).

A box is answered by the single mask, as SAM's predictor advises for prompts that are not ambiguous; the detector's
score is the mask's.
"""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mobilesam_export.accuracy.dataset import Annotation
from mobilesam_export.accuracy.detections import Detection
from mobilesam_export.accuracy.truth import Truth
from mobilesam_export.errors import ExportError
from reference import run_lengths
from reference.predictor import BasePredictor

NAMES = ("ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large")  # the first six of COCO's twelve


def require_pycocotools() -> None:
    """Raise an ExportError where it is not installed, before any work."""
    try:
        import pycocotools.cocoeval  # noqa: F401 - imported early, to fail before any work
    except ImportError as error:
        raise ExportError(
            f"AP is computed by pycocotools, which is not installed ({error}); pip install 'mobilesam-export[accuracy]'"
        ) from error


def answers_to(predictor: BasePredictor, detections: Sequence[Detection]) -> list[dict[str, Any]]:
    """COCO's results for the boxes on the photo that is set, without its id."""
    found = []
    for detection in detections:
        masks, _, _ = predictor.predict(box=detection.box, multimask_output=False)
        code = run_lengths.encode(masks[0])
        found.append({"category_id": detection.category, "score": detection.score, "segmentation": code})
    return found


def as_coco(annotation: Annotation, truth: Truth) -> dict[str, Any]:
    """An annotation as pycocotools takes it; its mask is coded anew, so that nothing unchecked gets there."""
    x0, y0, x1, y1 = truth.box
    return {
        "category_id": annotation.category,
        "iscrowd": int(annotation.crowd),
        "area": truth.area,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": run_lengths.encode(truth.mask),
    }


def average_precision(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """AP over photos.

    Args:
        records: each with the photo's ``size``, ``truths`` of ``as_coco`` and ``detections`` of ``answers_to``.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number, record in enumerate(records, 1):
        height, width = record["size"]
        images.append({"id": number, "height": height, "width": width})
        for truth in record["truths"]:
            annotations.append({**truth, "image_id": number, "id": len(annotations) + 1})  # 0 counts as no match
        results += [{**found, "image_id": number} for found in record["detections"]]
    categories = sorted({entry["category_id"] for entry in annotations})
    unknown = sum(found["category_id"] not in categories for found in results)
    counts = {"photos": len(images), "detections": len(results), "detections_of_other_categories": unknown}
    if not results or unknown == len(results):
        return {**counts, **dict.fromkeys(NAMES, 0.0)}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress and a table
        annotated = COCO()
        annotated.dataset = {
            "images": images, "annotations": annotations, "categories": [{"id": category} for category in categories],
        }  # fmt: skip
        annotated.createIndex()
        judge = COCOeval(annotated, annotated.loadRes(results), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {**counts, **{name: float(value) for name, value in zip(NAMES, judge.stats, strict=False)}}
