"""Masks as COCO's annotations, with the keys of SAM's ``SamAutomaticMaskGenerator``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mobilesam_export.outlines import outer_rings
from reference import run_lengths
from reference.found_mask import FoundMask

CATEGORY = {"id": 1, "name": "object"}


def as_polygons(found: FoundMask) -> list[list[int]]:
    """A mask's outer outlines as COCO's polygons, which have no holes."""
    left, top = found.box[:2]
    rings = outer_rings(found.pixels) if found.area else []
    return [[number for x, y in ring for number in (x + left, y + top)] for ring in rings]


def as_run_lengths(found: FoundMask) -> dict[str, Any]:
    """A mask as COCO's run-length code."""
    return run_lengths.encode(found.mask)


SEGMENTATIONS: dict[str, Callable[[FoundMask], Any]] = {"rle": as_run_lengths, "polygons": as_polygons}


def annotation_of(found: FoundMask, segmentation: str) -> dict[str, Any]:
    """The official generator's record of one mask; ``segmentation`` is a name of ``SEGMENTATIONS``."""
    x0, y0, x1, y1 = found.box
    left, top, right, bottom = found.crop
    return {
        "segmentation": SEGMENTATIONS[segmentation](found),
        "area": found.area,
        "bbox": [x0, y0, x1 - x0, y1 - y0],  # both corners inclusive, as the official one has them
        "predicted_iou": round(found.iou_prediction, 6),
        "point_coords": [[round(number, 3) for number in found.point]],
        "stability_score": round(found.stability_score, 6),
        "crop_box": [left, top, right - left, bottom - top],
    }


def document_of(photos: Sequence[tuple[Path, tuple[int, int], Sequence[dict[str, Any]]]]) -> dict[str, Any]:
    """COCO's document of photos, (H, W) sizes and annotations."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (path, (height, width), found) in enumerate(photos, 1):
        images.append({"id": number, "file_name": path.name, "height": height, "width": width})
        for record in found:
            named = {"id": len(annotations) + 1, "image_id": number, "category_id": CATEGORY["id"], "iscrowd": 0}
            annotations.append({**named, **record})
    return {"images": images, "annotations": annotations, "categories": [CATEGORY]}
