"""Read any photo as the array that MobileSAM expects, 8-bit RGB and upright; write pictures."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from reference.errors import ImageError


def as_rgb(image: NDArray[np.generic] | Image.Image) -> NDArray[np.uint8]:
    """Convert an image to (H, W, 3) uint8 RGB.

    Grey is repeated, alpha dropped, 16-bit integers reduced to their high byte; a PIL image is turned
    upright by its EXIF orientation.

    Args:
        image: PIL image of any integer mode, or an (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) array of uint8
            or uint16.

    Raises:
        ImageError: for anything else, such as floats, whose range is anyone's guess, or a channels-first array.
    """
    if isinstance(image, Image.Image):
        return _pil_as_rgb(image)
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


def _pil_as_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise ImageError("got an image of float pixels, expected 8-bit RGB; scale and convert it first")
    try:  # PIL may read the pixels only now
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16-bit grey; PIL's own conversion clips it at 255
            array = np.asarray(upright).clip(0, 65535).astype(np.uint16)
        else:
            array = np.array(upright.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"the image is damaged or of an unknown kind ({error}); open another") from error
    return as_rgb(array)


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read a photo from a file as (H, W, 3) uint8 RGB, upright by its EXIF orientation.

    Raises:
        ImageError: if the file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return as_rgb(image)
    except FileNotFoundError as error:
        raise ImageError(f"there is no image at {path}; check the path") from error
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path} cannot be read as an image ({error}); expected JPEG, PNG, WebP or the like"
        ) from error


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
