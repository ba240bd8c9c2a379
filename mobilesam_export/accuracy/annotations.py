"""Which reader reads what a user points at."""

from pathlib import Path

from mobilesam_export.accuracy.coco import read_coco
from mobilesam_export.accuracy.dataset import Dataset
from mobilesam_export.accuracy.mask_folder import read_mask_folder
from mobilesam_export.accuracy.sa1b import read_sa1b
from mobilesam_export.errors import ExportError


def read_dataset(images: Path, annotations: Path | None, also: frozenset[str] = frozenset()) -> Dataset:
    """Annotated photos.

    Args:
        images: a folder of photos.
        annotations: a JSON document of COCO or LVIS, a folder of SA-1B's documents or of masks; None if these lie
            beside the photos.
        also: see ``read_coco``.

    Raises:
        ExportError: there is nothing that can be measured on.
    """
    if not images.is_dir():
        raise ExportError(f"got {images} for --images, expected a folder of photos; check the path")
    annotations = annotations or images
    if not annotations.is_dir():
        return read_coco(annotations, images, also)
    names = [path.name for path in annotations.iterdir() if path.suffix == ".json"]
    return read_sa1b(annotations, images) if names else read_mask_folder(annotations, images)
