"""Read a folder as SA-1B's tar files unpack: ``sa_N.jpg`` beside ``sa_N.json`` with masks as run-length codes."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mobilesam_export.accuracy.coco import annotations_of
from mobilesam_export.accuracy.dataset import AnnotatedPhoto, Annotation, Dataset, Skipped
from mobilesam_export.errors import ExportError
from reference.photo_folder import ENDINGS
from reference.regular_file import regular_file_size

LARGEST_BYTES = 256 * 10**6  # of one photo's masks


def read_sa1b(documents: Path, images: Path) -> Dataset:
    """The photos of a folder that have a JSON document of the same name.

    Args:
        documents: folder of the JSON documents.
        images: folder of the photos, often the same.

    Raises:
        ExportError: no such pair.
    """
    files = sorted(path for path in documents.iterdir() if path.suffix == ".json" and path.is_file())
    pictures = {path.stem: path for path in sorted(images.iterdir()) if path.suffix.lower() in ENDINGS}
    photos = [
        AnnotatedPhoto(
            file.stem, pictures.get(file.stem, images / f"{file.stem}.jpg"), None, False, partial(_read, file)
        )
        for file in files
    ]
    if not photos or not any(file.stem in pictures for file in files):
        raise ExportError(
            f"no photo in {images} has masks of its name in {documents}, expected sa_N.jpg and sa_N.json; check both"
        )
    listed = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    unannotated = len(pictures.keys() - {file.stem for file in files})
    return Dataset("SA-1B", hashlib.sha256(listed.encode()).hexdigest(), photos, unannotated)


def _read(file: Path) -> Sequence[Annotation | Skipped]:
    regular_file_size(file, "file of annotations", LARGEST_BYTES, ValueError)
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} is no JSON ({str(error).splitlines()[0][:100]})") from error
    annotations = found.get("annotations") if isinstance(found, dict) else None
    if not isinstance(annotations, list):
        raise ValueError(f"{file.name} has no list of annotations")
    return annotations_of(annotations)
