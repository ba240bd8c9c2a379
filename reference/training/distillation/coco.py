"""COCO's annotations by photo: a folder of photos with one document, instead of a JSON beside each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from reference.coco_document import open_coco_document


def annotations_by_photo(document: Path) -> dict[str, list[Any]]:
    """The annotations of each photo that a document lists, not yet looked at; crowds are left out.

    Args:
        document: such as ``instances_train2017.json``.

    Returns:
        By file name, without folders; empty lists for photos on which nothing is annotated.

    Raises:
        ValueError: it is no such document, or two photos have the same name.
    """
    photos, annotations, _ = open_coco_document(document, ValueError)
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
