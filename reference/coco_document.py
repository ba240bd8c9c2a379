"""Open COCO's or LVIS's JSON: one document with lists of ``images`` and ``annotations``."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from reference.regular_file import regular_file_size

LARGEST_DOCUMENT_BYTES = 2 * 10**9  # LVIS has 1.1 GB


class CocoDocument(NamedTuple):
    """Both lists as they are, not yet looked at, and what tells the file from others."""

    images: list[Any]
    annotations: list[Any]
    sha256: str


def open_coco_document(path: Path, error: type[Exception]) -> CocoDocument:
    """Read a document such as ``instances_val2017.json`` or ``lvis_v1_val.json``.

    Args:
        path: of the document.
        error: class of what is raised if it is none.
    """
    regular_file_size(path, "annotation file (COCO's JSON)", LARGEST_DOCUMENT_BYTES, error)
    try:
        content = path.read_bytes()
        found = json.loads(content)
    except (ValueError, RecursionError) as reason:
        said = str(reason).splitlines()[0][:200]
        raise error(f"{path} is no JSON ({said}); give COCO's instances_*.json, or LVIS's") from reason
    images, annotations = (found.get(key) if isinstance(found, dict) else None for key in ("images", "annotations"))
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise error(
            f"{path} has no lists of images and annotations; give COCO's instances_*.json (captions and results "
            "are others), or LVIS's"
        )
    return CocoDocument(images, annotations, hashlib.sha256(content).hexdigest())
