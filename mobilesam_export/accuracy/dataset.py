"""Annotated photos, whoever wrote them down: what the readers (``coco``, ``sa1b``, ``mask_folder``) hand out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST_SIDE = 2**17  # pixels


@dataclass(frozen=True)
class Annotation:
    """One object on a photo; its mask is not yet looked at, see ``truth``.

    Attributes:
        name: what the file calls it.
        segmentation: COCO's polygons, a run-length code, or the file of a mask.
        box: XYXY in pixels, the right and bottom edge exclusive; None to take the mask's own.
        area: in pixels, as the file says; None to count the mask's.
        category: its number.
        crowd: many objects as one.
    """

    name: str
    segmentation: Any
    box: tuple[float, float, float, float] | None = None
    area: float | None = None
    category: int = 1
    crowd: bool = False


@dataclass(frozen=True)
class Skipped:
    """Something that cannot be measured on, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class AnnotatedPhoto:
    """A photo of a dataset.

    Attributes:
        name: unique in the dataset.
        path: where it should be.
        size: (H, W) that its annotations are for; None for any.
        upright: whether they are for the photo as its EXIF orientation shows it, or (COCO) for the pixels as stored.
        read: its annotations, read when they are asked for.

    ``read`` raises ValueError or OSError for annotations that cannot be read.
    """

    name: str
    path: Path
    size: tuple[int, int] | None
    upright: bool
    read: Callable[[], Sequence[Annotation | Skipped]]


@dataclass(frozen=True)
class Dataset:
    """Annotated photos.

    Attributes:
        kind: of its annotations, in words.
        identity: sha256 of what the annotations are.
        photos: those with at least one annotation, in the dataset's own order.
        unannotated: how many photos have none.
        skipped: annotations that belong to no photo.
    """

    kind: str
    identity: str
    photos: Sequence[AnnotatedPhoto]
    unannotated: int = 0
    skipped: Sequence[Skipped] = ()
