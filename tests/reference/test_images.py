"""Any photo becomes upright 8-bit RGB, or a one-line error."""

import io
import os
import struct
import sys
import warnings
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import EpsImagePlugin, Image, features

from reference import ImageError, Predictor
from reference.images import as_rgb, read_image
from reference.transforms import resize_longest_side

RGB = np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8)
GREY = RGB[..., 0]
RGBA = np.dstack([RGB, np.zeros((7, 11), np.uint8)])  # fully transparent: the colours count all the same


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (RGB, RGB),
        (RGBA, RGB),
        (GREY, np.dstack([GREY] * 3)),
        (GREY[..., None], np.dstack([GREY] * 3)),
        (RGB.astype(np.uint16) * 257, RGB),
        (GREY.astype(np.uint16) * 256 + 255, np.dstack([GREY] * 3)),
        (RGB[:, ::-1], RGB[:, ::-1]),
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(RGBA), RGB),
        (Image.fromarray(GREY), np.dstack([GREY] * 3)),
        (Image.fromarray(GREY.astype(np.uint16) * 257), np.dstack([GREY] * 3)),
        (Image.fromarray(GREY.astype(np.int32) * 257), np.dstack([GREY] * 3)),
        (Image.fromarray(GREY > 127).convert("1"), np.dstack([(GREY > 127) * np.uint8(255)] * 3)),
        (Image.fromarray(RGB).quantize(256), RGB),
    ],
    ids=[
        *(
            "RGB",
            "RGBA",
            "grey",
            "grey with channel",
            "16-bit RGB",
            "16-bit grey",
            "negative stride",
            "PIL RGB",
            "PIL RGBA",
        ),
        *("PIL grey", "PIL 16-bit", "PIL 32-bit", "PIL 1-bit", "PIL palette"),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(image: NDArray[np.generic] | Image.Image, expected: NDArray[np.uint8]) -> None:
    converted = as_rgb(image)
    assert converted.dtype == np.uint8
    assert converted.flags.c_contiguous
    np.testing.assert_array_equal(converted, expected)


def test_cmyk_becomes_rgb() -> None:
    red = as_rgb(Image.new("CMYK", (2, 2), (0, 255, 255, 0)))
    np.testing.assert_array_equal(red, np.full((2, 2, 3), (255, 0, 0)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (RGB.astype(np.float32) / 255, "dtype float32, expected uint8"),
        (RGB.astype(np.float64), "dtype float64"),
        (RGB.astype(np.int64), "dtype int64"),
        (GREY > 127, "dtype bool"),
        (RGB.transpose(2, 0, 1), r"shape \(3, 7, 11\), expected \(H, W, 3\)"),
        (RGB[None], r"shape \(1, 7, 11, 3\)"),
        (RGB[..., :2], r"shape \(7, 11, 2\)"),
        (RGB[:0], r"shape \(0, 11, 3\)"),
        (RGB[0, 0], r"shape \(3,\)"),
        ("photo.jpg", r"got the name 'photo\.jpg', expected pixels; give PIL\.Image\.open\('photo\.jpg'\)"),
        (np.array(None), "dtype object"),
        (Image.fromarray(GREY.astype(np.float32)), "float pixels"),
    ],
    ids=[
        *("float32", "float64", "int64", "bool", "channels first", "batch", "two channels", "empty", "pixel", "path"),
        *("None", "PIL float"),
    ],
)
def test_what_is_no_photo_is_refused(
    small_predictor: Predictor, image: NDArray[np.generic] | Image.Image, message: str
) -> None:
    embeddings = small_predictor.image_embeddings
    with pytest.raises(ImageError, match=message) as caught:
        small_predictor.set_image(image)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert small_predictor.image_embeddings is embeddings  # the earlier photo is still set


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((40, 64, 3), np.uint8)
    upright[:20, :32] = (255, 0, 0)  # red top left, blue bottom left: no two orientations look alike
    upright[20:, :32] = (0, 0, 255)
    # What a camera stores for each value, undone by: nothing, mirror, turn by 180, flip, transpose, ...
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "camera.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), upright)
    with Image.open(path) as image:
        np.testing.assert_array_equal(as_rgb(image), upright)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_matter() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG", exif=b"Exif\0\0II*\0" + bytes(range(40)))
    with Image.open(buffer) as image:
        assert as_rgb(image).shape == RGB.shape


WITHOUT_AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")


@pytest.mark.parametrize(
    "ending", ["jpg", "png", "webp", "tif", "bmp", "gif", pytest.param("avif", marks=WITHOUT_AVIF)]
)
def test_common_files_are_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"photo.{ending}"
    Image.new("RGB", (23, 17), (200, 100, 50)).save(path)
    image = read_image(path)
    assert image.shape == (17, 23, 3)
    np.testing.assert_allclose(image.reshape(-1, 3), [[200, 100, 50]] * image[..., 0].size, atol=3)  # JPEG


def test_a_16_bit_png_keeps_its_high_byte(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 256 + 99).save(tmp_path / "scan.png")
    np.testing.assert_array_equal(read_image(tmp_path / "scan.png"), np.dstack([GREY] * 3))


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.95])
def test_a_truncated_file_is_refused(tmp_path: Path, ending: str, part: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))
    whole, cut = tmp_path / f"whole.{ending}", tmp_path / f"cut.{ending}"
    noise.save(whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ImageError, match=r"cut\.\w+ (cannot be read as an image|is damaged)") as caught:
        read_image(cut)
    assert "\n" not in str(caught.value)


def test_a_truncated_pil_image_is_refused(small_predictor: Predictor) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)).save(buffer, "JPEG")
    with Image.open(io.BytesIO(buffer.getvalue()[:9000])) as image, pytest.raises(ImageError, match="is damaged"):
        small_predictor.set_image(image)


def test_no_file_no_image_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(ImageError, match=r"there is no photo at .*nowhere\.png; check the path"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match=r"notes\.txt cannot be read as an image; expected JPEG, PNG"):
        read_image(tmp_path / "notes.txt")
    with pytest.raises(ImageError, match="is a folder, expected a photo"):
        read_image(tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3), (3000, 4000)], ids=str)
def test_photos_of_every_shape_give_masks_of_theirs(small_predictor: Predictor, size: tuple[int, int]) -> None:
    height, width = size
    small_predictor.set_image(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    masks, iou, low_res = small_predictor.predict([[width / 2, height / 2]], [1], box=[0, 0, width, height])
    assert masks.shape == (3, height, width)
    assert masks.dtype == bool
    assert iou.shape == (3,)
    assert low_res.shape == (3, 56, 56)
    assert np.isfinite(low_res).all()


def test_resizing_is_pils_antialiased_bilinear() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    resized = resize_longest_side(photo, 64)
    expected = Image.fromarray(photo).resize((64, 44), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.asarray(expected))
    checkerboard = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    inner = resize_longest_side(checkerboard, 32)[4:-4, 4:-4]
    assert abs(inner.astype(int) - 127).max() <= 8  # without antialiasing it would be all black or white


def test_pipes_devices_and_giant_files_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match=r"pipe\.jpg is a pipe, expected a photo in a regular file"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="/dev/zero is a device, expected a photo"):
        read_image("/dev/zero")
    with (tmp_path / "giant.jpg").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(ImageError, match=r"giant\.jpg has 1,000,000 MB, expected a photo of at most 2,000 MB"):
        read_image(tmp_path / "giant.jpg")


@pytest.mark.parametrize("ending", ["png", "tif"])  # TIFF has one tile here: PIL looks at its size again as it reads
def test_photos_beyond_pils_limits_are_read_without_a_warning_up_to_ours(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, photo = tmp_path / f"phone.{ending}", Image.fromarray(RGB)
    photo.save(path)
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.jpg", exif=exif, quality=100, subsampling=0)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)  # 77 pixels are 15 times as many; in life 256 to 89 million
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(path), RGB)
        assert read_image(tmp_path / "turned.jpg").shape == (11, 7, 3)
    assert Image.MAX_IMAGE_PIXELS == 5
    monkeypatch.setattr("reference.images.MOST_MEGAPIXELS", 76e-6)
    with pytest.raises(
        ImageError, match=r"phone\.\w+ has 0 megapixels \(11 x 7\), expected at most 7.6e-05, for which"
    ):
        read_image(path)
    with pytest.raises(ImageError, match=r"the image has 0 megapixels \(11 x 7\)"):
        as_rgb(photo)
    assert Image.MAX_IMAGE_PIXELS == 5


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    Image.new("1", (1, 1)).save(tmp_path / "bomb.png")
    data = bytearray((tmp_path / "bomb.png").read_bytes())
    data[16:24] = struct.pack(">II", 100_000, 100_000)  # width and height
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(
        ImageError, match=r"has 10,000 megapixels \(100000 x 100000\), expected at most 256, for which 4"
    ):
        read_image(tmp_path / "bomb.png")


def test_pixels_are_copied_from_pil_in_strips_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference.images._STRIP_PIXELS", 25)  # two rows of 11, so that the last strip has one
    for image, expected in (
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(GREY.astype(np.uint16) * 257), np.dstack([GREY] * 3)),
    ):
        np.testing.assert_array_equal(as_rgb(image), expected)


HEIC_START = b"\0\0\0\x18ftypheic\0\0\0\0"


def test_heic_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for name in ("IMG_0001.HEIC", "misnamed.jpg"):
        (tmp_path / name).write_bytes(HEIC_START + bytes(100))
        with pytest.raises(
            ImageError, match=rf"{name} is a HEIC photo; pip install pillow-heif to read it, or save it"
        ):
            read_image(tmp_path / name)


def test_heic_is_read_if_pillow_heif_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = ModuleType("pillow_heif")

    def register_heif_opener() -> None:
        def decode(file: io.BytesIO, name: str) -> Image.Image:
            file.seek(len(HEIC_START))
            return Image.open(io.BytesIO(file.read()))

        Image.register_open("HEIF", decode, lambda start: start.startswith(HEIC_START[:12]))

    plugin.__dict__["register_heif_opener"] = register_heif_opener
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG")
    (tmp_path / "IMG_0001.HEIC").write_bytes(HEIC_START + buffer.getvalue())
    np.testing.assert_array_equal(read_image(tmp_path / "IMG_0001.HEIC"), RGB)


def test_real_heic_is_read(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="optional: pip install pillow-heif")
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 100, 50))).save(tmp_path / "IMG_0001.HEIC", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "IMG_0001.HEIC").reshape(-1, 3), [[200, 100, 50]] * 3072, atol=4)


def test_postscript_under_a_photos_name_does_not_reach_ghostscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments, **_: ran.append(arguments))
    Image.fromarray(RGB).save(tmp_path / "photo.eps")
    (tmp_path / "photo.eps").rename(tmp_path / "photo.jpg")
    with pytest.raises(ImageError, match=r"photo\.jpg cannot be read as an image; expected JPEG, PNG"):
        read_image(tmp_path / "photo.jpg")
    assert ran == []


def test_phones_jpegs_with_two_pictures_give_the_first(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (23, 17), colour) for colour in ((200, 100, 50), (0, 0, 255)))
    first.save(tmp_path / "portrait.jpg", "MPO", save_all=True, append_images=[second], quality=100, subsampling=0)
    np.testing.assert_allclose(read_image(tmp_path / "portrait.jpg")[8, 11], (200, 100, 50), atol=3)  # JPEG
