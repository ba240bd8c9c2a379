"""Read a folder of mask pictures: ``PHOTO.png``, several as ``PHOTO-1.png`` ..., or a folder ``PHOTO/`` of them.

A mask is a grey or black-and-white picture of the photo's size, the object brighter than half of the brightest pixel.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mobilesam_export.accuracy.dataset import AnnotatedPhoto, Annotation, Dataset
from mobilesam_export.errors import ExportError
from reference.photo_folder import ENDINGS
from reference.regular_file import regular_file_size

LARGEST_BYTES = 256 * 10**6
GREY_MODES = ("1", "L")


def read_mask_folder(masks: Path, images: Path) -> Dataset:
    """The photos of a folder that have masks.

    Raises:
        ExportError: none has.
    """
    pictures = sorted(path for path in images.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    files = sorted(path for path in masks.iterdir() if path.suffix.lower() == ".png" and path.is_file())
    photos, listed = [], []
    for picture in pictures:
        mine = [file for file in files if file.stem == picture.stem or file.stem.startswith(f"{picture.stem}-")]
        folder = masks / picture.stem
        if folder.is_dir():
            mine += sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png")
        if not mine or picture in mine:
            continue
        listed += [f"{file.relative_to(masks)} {file.stat().st_size}" for file in mine]
        photos.append(AnnotatedPhoto(picture.name, picture, None, True, partial(_annotations, mine, masks)))
    if not photos:
        raise ExportError(
            f"no photo in {images} has a mask in {masks}, expected photo.png, photo-1.png ... or photo/*.png for "
            "photo.jpg; check both"
        )
    identity = hashlib.sha256("\n".join(listed).encode()).hexdigest()
    return Dataset("masks", identity, photos, len(pictures) - len(photos))


def _annotations(files: Sequence[Path], masks: Path) -> list[Annotation]:
    return [Annotation(str(file.relative_to(masks)), file) for file in files]


def read_mask(file: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask picture of (H, W) ``size``.

    Raises:
        ValueError: it is none.
    """
    regular_file_size(file, "mask", LARGEST_BYTES, ValueError)
    try:
        with Image.open(file, formats=["PNG"]) as picture:
            if picture.size != size[::-1]:
                raise ValueError(f"mask of size {[*picture.size[::-1]]} on a picture of {list(size)}")
            if picture.mode not in GREY_MODES:
                raise ValueError(f"a picture of mode {picture.mode}, expected grey or black and white")
            pixels = np.asarray(picture.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"no PNG picture ({str(error)[:100]})") from error
    mask: NDArray[np.bool_] = pixels > pixels.max() // 2
    return mask
