"""A user's own photos: to verify on, with every kind of prompt where the subject usually is, and to calibrate on."""

from pathlib import Path

from mobilesam_export.parity.cases import Photo, Point
from reference.errors import ImageError
from reference.images import read_image
from reference.photo_folder import photo_files
from reference.transforms import resized_size

MOST_PHOTOS = 64
LONGEST_SIDE = 1024  # pixels; larger photos are reduced, so that the masks of all fit into memory (20 MB a photo)


def own_photos(directory: str | Path) -> tuple[Photo, ...]:
    """The photos of a folder, each with a prompt of every kind around its middle.

    Raises:
        ImageError: no folder, no photos, more than ``MOST_PHOTOS``, or one that cannot be read.
    """
    return tuple(photo_of(path) for path in photo_files(directory, MOST_PHOTOS))


def calibration_photos(directory: str | Path) -> list[Path]:
    """The photos of a folder for a recipe's ranges, each read once so that a damaged one is found before any work.

    Raises:
        ImageError: as ``own_photos``.
    """
    files = photo_files(directory, MOST_PHOTOS)
    for path in files:
        read_image(path)
    return files


def photo_of(path: Path) -> Photo:
    """A photo with a prompt of every kind around its middle.

    Raises:
        ImageError: it cannot be read, or its name cannot be printed.
    """
    if not path.name.isprintable():  # it will stand in reports and in the manifest
        raise ImageError(f"got a photo named {path.name!r}, expected a name that can be printed; rename it")
    height, width = read_image(path).shape[:2]
    if max(height, width) > LONGEST_SIDE:
        height, width = resized_size((height, width), LONGEST_SIDE)

    def at(x: float, y: float) -> Point:
        """From parts of the photo to its pixels."""
        return x * (width - 1), y * (height - 1)

    return Photo(
        path.name,
        point=at(0.5, 0.5),
        points=(at(0.42, 0.5), at(0.58, 0.55), at(0.04, 0.06)),  # the subject without what is behind it
        labels=(1, 1, 0),
        box=(*at(0.25, 0.25), *at(0.75, 0.75)),
        second_box=(*at(0.1, 0.1), *at(0.9, 0.95)),
        boxed_points=(at(0.5, 0.55), at(0.12, 0.12)),
        directory=path.parent,
        longest_side=LONGEST_SIDE,
    )
