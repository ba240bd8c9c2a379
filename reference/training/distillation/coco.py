"""COCO's annotations by photo: a folder of photos with one document, instead of a JSON beside each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from reference.regular_file import regular_file_size

LARGEST_DOCUMENT_BYTES = 2 * 10**9  # LVIS has 1.1 GB


def annotations_by_photo(document: Path) -> dict[str, list[Any]]:
    """The annotations of each photo that a document lists, not yet looked at; crowds are left out.

    Args:
        document: such as ``instances_train2017.json``.

    Returns:
        By file name, without folders; empty lists for photos on which nothing is annotated.

    Raises:
        ValueError: it is no such document, or two photos have the same name.
    """
    regular_file_size(document, "annotation file (COCO's JSON)", LARGEST_DOCUMENT_BYTES, ValueError)
    try:
        found = json.loads(document.read_bytes())
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(f"{document} is no JSON ({reason}); give COCO's instances_*.json") from error
    photos, annotations = (found.get(key) if isinstance(found, dict) else None for key in ("images", "annotations"))
    if not isinstance(photos, list) or not isinstance(annotations, list):
        raise ValueError(
            f"{document} has no lists of images and annotations; give COCO's instances_*.json (captions and results "
            "are others)"
        )
    by_name: dict[str, list[Any]] = {}
    by_id: dict[str, list[Any]] = {}
    for name, photo_id in _names(document, photos):
        if name in by_name or photo_id in by_id:
            raise ValueError(f"{document} lists the photo {name[:80]!r} or its id twice; give each photo one entry")
        by_name[name] = by_id[photo_id] = []
    for annotation in annotations:
        if isinstance(annotation, dict) and not annotation.get("iscrowd"):
            by_id.get(str(annotation.get("image_id")), []).append(annotation)
    return by_name


def _names(document: Path, photos: list[Any]) -> Iterator[tuple[str, str]]:
    """File name and id of each entry."""
    for number, photo in enumerate(photos):
        name = photo.get("file_name") if isinstance(photo, dict) else None
        if not isinstance(name, str) or "id" not in photo:
            raise ValueError(f"{document}: image {number} has no file_name and id; give COCO's instances_*.json")
        yield PurePosixPath(name).name, str(photo["id"])
