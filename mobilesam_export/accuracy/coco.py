"""Read COCO's and LVIS's annotations: one JSON document with ``images`` and ``annotations``."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from mobilesam_export.accuracy.dataset import (
    LONGEST_SIDE,
    AnnotatedPhoto,
    Annotation,
    Dataset,
    Skipped,
)  # fmt: skip
from mobilesam_export.errors import ExportError
from reference.coco_document import open_coco_document


def read_coco(document: Path, images: Path, also: frozenset[str] = frozenset()) -> Dataset:
    """The photos that a document lists, looked for in a folder.

    Args:
        document: such as ``instances_val2017.json`` or ``lvis_v1_val.json``.
        images: such as ``val2017``.
        also: ids of photos that are wanted although nothing is annotated on them.

    Raises:
        ExportError: it is no such document, or no photo in it has an annotation.
    """
    records, raw, sha256 = open_coco_document(document, ExportError)
    of_photo: dict[str, list[Any]] = {}
    for annotation in raw:
        photo = str(annotation.get("image_id")) if isinstance(annotation, dict) else "None"
        of_photo.setdefault(photo, []).append(annotation)

    photos, unannotated, ids = [], 0, set[str]()
    for number, record in enumerate(records):
        photo_id = _id_of(record, document, number, ids)
        mine = of_photo.pop(photo_id, [])
        if not mine and photo_id not in also:
            unannotated += 1
            continue
        path, size = _place_of(record, images, document), _size_of(record, document)
        photos.append(AnnotatedPhoto(photo_id, path, size, False, partial(annotations_of, mine)))
    homeless = [
        Skipped(_name_of(annotation), f"image_id {photo[:40]}, which the file does not list")
        for photo, theirs in of_photo.items()
        for annotation in theirs
    ]
    if not photos:
        raise ExportError(
            f"{document} lists {len(records):,} images and {len(raw):,} annotations, and none of these is on one of "
            "those; check that it is whole"
        )
    return Dataset("COCO", sha256, photos, unannotated, homeless)


def annotations_of(raw: Sequence[Any]) -> list[Annotation | Skipped]:
    """COCO's entries, checked one by one: a wrong one costs itself only."""
    found: list[Annotation | Skipped] = []
    for entry in raw:
        try:
            found.append(_annotation(entry))
        except ValueError as error:
            found.append(Skipped(_name_of(entry), str(error)))
    return found


def _annotation(entry: Any) -> Annotation:
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object, got {type(entry).__name__}")
    area, category = entry.get("area"), entry.get("category_id", 1)
    if area is not None and not (_is_number(area) and area >= 0):
        raise ValueError(f"an area of {str(area)[:40]}")
    if type(category) is not int:
        raise ValueError(f"a category_id of {str(category)[:40]}")
    return Annotation(
        _name_of(entry), entry.get("segmentation"), box_of(entry.get("bbox")), area, category,
        bool(entry.get("iscrowd")),
    )  # fmt: skip


def box_of(bbox: Any) -> tuple[float, float, float, float] | None:
    """XYXY of COCO's x, y, width, height.

    Raises:
        ValueError: it is none.
    """
    if bbox is None:
        return None
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(n) for n in bbox):
        raise ValueError(f"a bbox of {str(bbox)[:60]}")
    x, y, width, height = map(float, bbox)
    if not (width > 0 and height > 0):
        raise ValueError(f"a bbox of {width:g} x {height:g} pixels")
    return x, y, x + width, y + height


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _name_of(entry: Any) -> str:
    return str(entry.get("id"))[:40] if isinstance(entry, dict) else "an annotation without id"


def _id_of(record: Any, document: Path, number: int, ids: set[str]) -> str:
    photo_id = record.get("id") if isinstance(record, dict) else None
    if not isinstance(photo_id, int | str) or isinstance(photo_id, bool):
        raise ExportError(f"{document}: image {number} has no id; check that the file is whole")
    if str(photo_id) in ids:
        raise ExportError(f"{document}: the image id {str(photo_id)[:40]} is there twice; check that the file is whole")
    ids.add(str(photo_id))
    return str(photo_id)


def _size_of(record: dict[str, Any], document: Path) -> tuple[int, int]:
    height, width = record.get("height"), record.get("width")
    for side in (height, width):
        if type(side) is not int or not 0 < side <= LONGEST_SIDE:
            raise ExportError(
                f"{document}: image {str(record.get('id'))[:40]} has a side of {str(side)[:40]}, expected pixels"
            )
    assert isinstance(height, int) and isinstance(width, int)
    return height, width


def _place_of(record: dict[str, Any], images: Path, document: Path) -> Path:
    """The photo's file; LVIS gives an address, of which the end is the file."""
    given = record.get("file_name") or record.get("coco_url")
    name = PurePosixPath(str(given).split("://")[-1])
    if not isinstance(given, str) or not given.isprintable() or ".." in name.parts or not name.name:
        raise ExportError(
            f"{document}: image {str(record.get('id'))[:40]} has the file name {str(given)[:60]!r}, expected one below "
            "the folder of images"
        )
    within = [name] if "file_name" in record and not name.is_absolute() else []
    for candidate in (*within, PurePosixPath(*name.parts[-2:]), PurePosixPath(name.name)):
        if not candidate.is_absolute() and (images / candidate).is_file():
            return images / candidate
    return images / name.name
