"""Read any photo as the array that MobileSAM expects, 8-bit RGB and upright; write pictures."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from reference.errors import ImageError
from reference.regular_file import regular_file_size

MOST_MEGAPIXELS = 256  # room for 200-megapixel phones; segmenting takes 14 bytes a pixel (measured), reading 8
LARGEST_FILE_BYTES = 2 * 10**9  # such a photo as uncompressed 16-bit TIFF
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # PIL knows more, and runs Ghostscript for one of them
_WHERE_INSTALLED = ("AVIF", "HEIF")  # what phones write too; of PIL's build, and of pillow-heif
_STRIP_PIXELS = 2**22  # copied from PIL at a time; all at once would be in memory three times
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_pils_limit_lock = threading.Lock()


def as_rgb(image: NDArray[np.generic] | Image.Image) -> NDArray[np.uint8]:
    """Convert an image to (H, W, 3) uint8 RGB.

    Grey is repeated, alpha dropped, 16-bit integers reduced to their high byte; a PIL image is turned
    upright by its EXIF orientation.

    Args:
        image: PIL image of any integer mode, or an (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) array of uint8
            or uint16.

    Raises:
        ImageError: for anything else, such as floats, whose range is anyone's guess, a channels-first array, a
            file's name, or a PIL image of more than ``MOST_MEGAPIXELS``.
    """
    if isinstance(image, Image.Image):
        return _pil_as_rgb(image, "the image")
    if isinstance(image, str | Path):
        raise ImageError(f"got the name {str(image)!r}, expected pixels; give PIL.Image.open({str(image)!r})")
    array = np.asarray(image)
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(f"got an image of dtype {array.dtype}, expected uint8 in 0..255; scale and cast it first")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(f"got an image of shape {array.shape}, expected (H, W, 3) RGB; transpose or stack it first")
    if array.shape[2] == 1:
        array = array.repeat(3, axis=2)
    return np.ascontiguousarray(array[..., :3])


def _pil_as_rgb(image: Image.Image, name: str, ours: bool = False, upright: bool = True) -> NDArray[np.uint8]:
    """Pixels of a PIL image that was opened within its limits; ``ours`` may be turned in place."""
    if image.mode == "F":
        raise ImageError(f"{name} has float pixels, expected 8-bit RGB; scale and convert it first")
    width, height = image.size
    if width * height > MOST_MEGAPIXELS * 10**6:
        raise ImageError(
            f"{name} has {width * height / 1e6:,.0f} megapixels ({width} x {height}), expected at most "
            f"{MOST_MEGAPIXELS}, for which 4 GB of memory are needed; make it smaller first"
        )
    try:  # PIL may read the pixels only now
        if ours and upright:
            ImageOps.exif_transpose(image, in_place=True)
        turned = image if ours or not upright else ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name} is damaged or of an unknown kind ({error}); open another") from error
    width, height = turned.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = turned.crop((0, top, width, min(top + rows, height)))
        if strip.mode.startswith("I"):  # 16-bit grey; PIL's own conversion clips it at 255
            pixels[top : top + rows] = as_rgb(np.asarray(strip).clip(0, 65535).astype(np.uint16))
        else:
            pixels[top : top + rows] = np.asarray(strip.convert("RGB"))
    return pixels


def read_image(path: str | Path, upright: bool = True) -> NDArray[np.uint8]:
    """Read a photo from a file as (H, W, 3) uint8 RGB.

    HEIC, what iPhones write, is read if pillow-heif is installed.

    Args:
        path: of the file.
        upright: turn it by its EXIF orientation; False for the pixels as they are stored.

    Raises:
        ImageError: if the file is missing, truncated, no image, no regular file, or larger than
            ``MOST_MEGAPIXELS`` or ``LARGEST_FILE_BYTES``.
    """
    regular_file_size(path, "photo", LARGEST_FILE_BYTES, ImageError)
    try:
        with _pils_limit(None):  # this reads the header only; the size is looked at before the pixels
            image = _open(Path(path))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise ImageError(f"{path} cannot be read as an image{reason}; expected JPEG, PNG, WebP or the like") from error
    with image:
        if image.width * image.height <= (Image.MAX_IMAGE_PIXELS or 0):
            return _pil_as_rgb(image, str(path), ours=True, upright=upright)
        with _pils_limit(MOST_MEGAPIXELS * 10**6):
            return _pil_as_rgb(image, str(path), ours=True, upright=upright)


def _open(path: Path) -> Image.Image:
    Image.init()  # all of PIL's formats are known to it from here on
    try:
        return Image.open(path, formats=_formats())
    except UnidentifiedImageError:
        with path.open("rb") as file:
            start = file.read(12)
        if start[4:8] != b"ftyp" or start[8:] not in _HEIF_BRANDS:
            raise
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ImageError(f"{path} is a HEIC photo; pip install pillow-heif to read it, or save it as JPEG") from error
    register_heif_opener()
    return Image.open(path, formats=_formats())


def _formats() -> list[str]:
    return [*FORMATS, *(name for name in _WHERE_INSTALLED if name in Image.OPEN)]


@contextmanager
def _pils_limit(pixels: int | None) -> Iterator[None]:
    """Put our limit in the place of PIL's, a global that warns from 89 megapixels and refuses from 179."""
    with _pils_limit_lock:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all, in the format that the name ends with; makes the folder.

    Raises:
        ImageError: no picture format ends so.
        OSError: the place cannot be written.
    """
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise ImageError(f"got {path} for a picture, expected a name that ends in .png or .jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        picture.save(part, kind)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
