"""Conformance vectors for host code, written from the reference; the format is in ``apps/conformance/README.md``."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.bundle.predictor import decoder_points
from mobilesam_export.contract import CONTRACT_VERSION, PAD_COLOUR, PAD_COLOUR_8BIT
from mobilesam_export.errors import ExportError
from mobilesam_export.model_frame import model_frame
from mobilesam_export.outlines import polygons
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.point_slots import fill_slots
from mobilesam_export.segmenter import Mask, Segmenter, SegmenterError, best_row, check, is_ambiguous
from mobilesam_export.vector_inputs import (
    PHOTO_SIZE,
    PROMPTS,
    SIZES,
    Box,
    Points,
    Size,
    made_up_logits,
    made_up_photo,
    shapes,
)
from reference.checkpoint import weights_sha256
from reference.images import read_image
from reference.mobile_sam import MobileSam
from reference.predictor import Predictor
from reference.prompts import check_prompts
from reference.small_regions import fill_holes, remove_islands
from reference.transforms import resize_longest_side, upscale_logits

FORMAT = "mobilesam-vectors"
FORMAT_VERSION = "1"
UNDECIDED = 1e-4  # a logit this close to zero may fall on either side, by the order of float32 sums
EITHER = 2
_MOST_BYTES = 64 * 1024  # bytes of one array; a larger result is stored in part
_EXIF_ORIENTATION = 0x0112


@dataclass
class _Writer:
    """The folder that arrays are written into."""

    directory: Path

    def array(self, name: str, values: NDArray[Any]) -> dict[str, Any]:
        """Write an array's bytes and return its entry."""
        ending = {"uint8": "u8", "float32": "f32"}[str(values.dtype)]
        file = f"arrays/{name.replace(' ', '-').replace(',', '')}.{ending}"
        (self.directory / "arrays").mkdir(parents=True, exist_ok=True)
        stored = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        (self.directory / file).write_bytes(stored.tobytes())
        return {"file": file, "dtype": str(values.dtype), "shape": list(values.shape)}


def write_vectors(
    directory: Path, bundle: Path | None = None, load: Callable[[Manifest], MobileSam] | None = None
) -> Path:
    """Write all sections.

    Args:
        directory: new, or without a ``vectors.json``.
        bundle: whose S and slots to add, and whose weights' masks.
        load: the model that a bundle was exported from, by its manifest.

    Returns:
        the path of ``vectors.json``.

    Raises:
        ExportError: if there are vectors already, or the model is not the bundle's.
    """
    path = directory / "vectors.json"
    if path.exists():
        raise ExportError(f"{path} exists; choose another folder, or delete it")
    manifest = Manifest.read(bundle) if bundle is not None else None
    sam = load(manifest) if manifest and load else None
    if manifest and sam and weights_sha256(sam) != manifest.weights.sha256:
        raise ExportError("the bundle was exported from other weights; say from which with --checkpoint PATH")
    writer = _Writer(directory)
    sizes = sorted({128, 1024} | ({manifest.image_size} if manifest else set()))
    sections: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "contract_version": CONTRACT_VERSION,
        "resize": list(_resize(writer, sizes)),
        "orientation": list(_orientation(writer)),
        "frames": list(_frames(writer)),
        "prompts": list(_prompts(sizes)),
        "prompt_errors": list(_prompt_errors()),
        "choices": list(_choices()),
        "masks": list(_masks(writer, sizes)),
        "regions": list(_regions(writer)),
        "polygons": list(_polygons(writer)),
        "bundle": _bundle(writer, manifest, sam) if manifest and sam else None,
    }
    lines = (f" {json.dumps(name)}: {_lines(value)}" for name, value in sections.items())
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    return path


def _lines(value: Any) -> str:
    """JSON with one case a line."""
    if not isinstance(value, list):
        return json.dumps(value, allow_nan=False)
    return "[\n" + ",\n".join(f"  {json.dumps(case, allow_nan=False)}" for case in value) + "\n ]"


def _some_rows(height: int, row_bytes: int) -> list[int] | None:
    """None for all rows, or where that is too much eight from top to bottom, the first and last among them."""
    if height * row_bytes <= _MOST_BYTES or height <= 8:
        return None
    return [round(i * (height - 1) / 7) for i in range(8)]


def _resize(writer: _Writer, image_sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    for image_size in image_sizes:
        for name, size in SIZES.items():
            pixels = resize_longest_side(made_up_photo(size), image_size)
            rows = _some_rows(pixels.shape[0], pixels[0].nbytes)
            yield {
                "name": f"{name} to {image_size}",
                "photo_size": size,
                "image_size": image_size,
                "resized_size": pixels.shape[:2],
                "rows": rows,
                "pixels": writer.array(f"resize-{name}-{image_size}", pixels if rows is None else pixels[rows]),
            }


def _orientation(writer: _Writer) -> Iterator[dict[str, Any]]:
    stored_size, file_size = (3, 5), (32, 48)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[_EXIF_ORIENTATION] = orientation
        # Flat blocks of a JPEG's own 16 pixels, so that every decoder gets nearly the same.
        blocks = made_up_photo((2, 3)).repeat(16, axis=0).repeat(16, axis=1)
        assert blocks.shape[:2] == file_size
        jpeg = f"arrays/orientation-{orientation}.jpg"
        (writer.directory / "arrays").mkdir(parents=True, exist_ok=True)
        Image.fromarray(blocks).save(writer.directory / jpeg, quality=95, subsampling=0, exif=exif)
        upright = _upright(made_up_photo(stored_size), orientation)
        yield {
            "name": f"orientation {orientation}",
            "orientation": orientation,
            "stored_size": stored_size,
            "upright_size": upright.shape[:2],
            "pixels": writer.array(f"orientation-{orientation}", upright),
            "jpeg": jpeg,
            "jpeg_pixels": writer.array(f"orientation-{orientation}-jpeg", read_image(writer.directory / jpeg)),
        }


def _upright(stored: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    image = Image.fromarray(stored)
    image.getexif()[_EXIF_ORIENTATION] = orientation
    return np.array(ImageOps.exif_transpose(image))


def _frames(writer: _Writer) -> Iterator[dict[str, Any]]:
    image_size = 64
    layouts: tuple[tuple[str, str], ...] = (("nchw", "float32"), ("nhwc", "float32"), ("nhwc", "uint8"))
    for name, size in (("landscape", (20, 50)), ("portrait", (70, 33))):
        resized = resize_longest_side(made_up_photo(size), image_size)
        for layout, dtype in layouts:
            colour = PAD_COLOUR if dtype == "float32" else PAD_COLOUR_8BIT
            frame = model_frame(resized, image_size, pad_colour=colour, dtype=dtype, channels_first=layout == "nchw")
            yield {
                "name": f"{name}, {layout} {dtype}",
                "photo_size": size,
                "image_size": image_size,
                "layout": layout,
                "pixels": writer.array(f"frame-{name}-{layout}", frame),
            }


def _asked(
    name: str, points: Points, box: Box | None, has_mask: bool, size: Size, max_points: int | None
) -> dict[str, Any]:
    return {
        "name": name,
        "photo_size": size,
        "max_points": max_points,
        "points": points,
        "box": box,
        "previous_mask": has_mask,
    }


def _prompts(image_sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    elongated: Points = [(3999.5, 11.5, 1), (2000, 0.25, 0)]
    odd: Points = [(450, 300, 1), (0.5, 0.5, 0)]
    asked = [(name, points, box, mask, PHOTO_SIZE) for name, points, box, mask in PROMPTS]
    asked += [
        ("4000 x 12", elongated, None, False, (12, 4000)),
        ("odd sides", odd, (1, 2, 449, 299), False, (301, 451)),
    ]
    asked += [("1 x 1", [(0.5, 0.5, 1)], None, False, (1, 1))]
    for image_size in image_sizes:
        for name, points, box, has_mask, size in asked:
            low = image_size // 4
            prompts = check_prompts(
                [[p[:2] for p in points]] if points else None,
                [[p[2] for p in points]] if points else None,
                None if box is None else [box],
                np.zeros((1, 1, low, low)) if has_mask else None,
                size,
                image_size,
            )
            coords, labels = decoder_points(prompts)
            for max_points in (None, 8, labels.shape[1]):
                filled, kinds = fill_slots(coords, labels, max_points or labels.shape[1])
                full = "any number of slots" if max_points is None else f"{max_points} slots"
                yield {
                    **_asked(f"{name}, S = {image_size}, {full}", points, box, has_mask, size, max_points),
                    "image_size": image_size,
                    "point_coords": filled[0].tolist(),
                    "point_labels": [int(kind) for kind in kinds[0]],
                    "has_mask_input": int(has_mask),
                    "multimask": is_ambiguous(points, box, has_mask),
                }


def _prompt_errors() -> Iterator[dict[str, Any]]:
    eight: Points = [(10.0 * i, 10, 1) for i in range(8)]
    wrong: tuple[tuple[str, Points, Box | None], ...] = (
        ("nothing", [], None),
        ("right of the photo", [(600.5, 10, 1)], None),
        ("above the photo", [(10, -0.5, 1)], None),
        ("second point outside", [(10, 10, 1), (10, 401, 0)], None),
        ("box outside", [], (10, 10, 601, 20)),
        ("point outside before wrong label", [(10, 10, 5), (-1, 10, 1)], None),
        ("corner label as a point", [(10, 10, 2)], None),
        ("padding label as a point", [(10, 10, -1)], None),
        ("swapped box", [], (20, 10, 10, 20)),
        ("empty box", [], (10, 10, 10, 20)),
        ("eight points and the padding point", eight, None),
        ("seven points and a box", eight[:7], (1, 2, 3, 4)),
    )
    for name, points, box in wrong:
        try:
            check(points, box, False, PHOTO_SIZE, 8)
        except SegmenterError as error:
            yield {**_asked(name, points, box, False, PHOTO_SIZE, 8), "error": str(error.code)}
        else:
            raise AssertionError(f"{name} passes")


def _choices() -> Iterator[dict[str, Any]]:
    for name, multimask, predictions in (
        ("best of three", True, [0.99, 0.5, 0.75, 0.625]),
        ("first of equal ones", True, [0.5, 0.75, 0.875, 0.875]),
        ("single", False, [0.25, 0.5, 0.75, 0.625]),
        ("negative predictions", True, [0.5, -0.25, -0.125, -0.5]),
    ):
        row = best_row(multimask, predictions)
        yield {"name": name, "multimask": multimask, "iou_predictions": predictions, "row": row}


def _masks(writer: _Writer, image_sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    sizes = {name: SIZES[name] for name in ("portrait", "landscape", "odd sides", "1 x 1", "5 x 3", "4000 x 12")}
    sizes |= {"square": (128, 128), "large landscape": (1500, 2000)}
    for image_size in image_sizes:
        for name, size in sizes.items():
            low_res = torch.from_numpy(made_up_logits(image_size))[None, None]
            logits = upscale_logits(low_res, size, image_size)[0, 0].numpy()
            rows = _some_rows(size[0], size[1])
            yield {
                "name": f"{name}, S = {image_size}",
                "photo_size": size,
                "image_size": image_size,
                "logits": None,
                "rows": rows,
                "mask": writer.array(
                    f"mask-{name}-{image_size}", _three_valued(logits if rows is None else logits[rows])
                ),
            }
    # What the made-up waves do not have: large steps, and logits of exactly zero, which are not in the mask.
    steps = np.where(made_up_logits(128) > 0, 30, -25).astype(np.float32)
    steps[:2] = 0
    size = (100, 150)
    logits = upscale_logits(torch.from_numpy(steps)[None, None], size, 128)[0, 0].numpy()
    mask = _three_valued(logits)
    mask[logits == 0] = 0
    yield {
        "name": "steps and zeros, S = 128",
        "photo_size": size,
        "image_size": 128,
        "logits": writer.array("logits-steps", steps),
        "rows": None,
        "mask": writer.array("mask-steps", mask),
    }


def _three_valued(logits: NDArray[np.float32]) -> NDArray[np.uint8]:
    """1 in the mask, 0 outside, 2 where float32 sums in another order may say either."""
    mask = (logits > 0).astype(np.uint8)
    mask[np.abs(logits) <= UNDECIDED] = EITHER
    return mask


def _regions(writer: _Writer) -> Iterator[dict[str, Any]]:
    for name, mask in shapes().items():
        for operation, apply in (("fill_holes", fill_holes), ("remove_islands", remove_islands)):
            for area in (2, 5, 1000):
                yield {
                    "name": f"{name}, {operation} {area}",
                    "mask": writer.array(f"shape-{name}", mask.astype(np.uint8)),
                    "operation": operation,
                    "area": area,
                    "result": writer.array(f"{operation}-{name}-{area}", apply(mask, area).astype(np.uint8)),
                }


def _polygons(writer: _Writer) -> Iterator[dict[str, Any]]:
    for name, mask in shapes().items():
        stored = writer.array(f"shape-{name}", mask.astype(np.uint8))
        yield {"name": name, "mask": stored, "rings": polygons(mask)}


def _bundle(writer: _Writer, manifest: Manifest, sam: MobileSam) -> dict[str, Any]:
    targets = {
        name: {
            "precision": entry.precision,
            "max_points": entry.contract["max_points"],
            "least_iou": entry.parity["gates"]["mask_iou"] if entry.parity else None,
        }
        for name, entry in manifest.targets.items()
    }
    slots = min((t["max_points"] for t in targets.values() if t["max_points"]), default=None)
    segmenter = Segmenter(Predictor(sam))
    photos = []
    for photo in PHOTOS:
        pixels = photo.read()
        segmenter.set_image(pixels)
        answers: dict[str, tuple[Mask, float]] = {}
        cases = []
        for case in photo.cases():
            if slots is not None and case.slots > slots:
                continue
            previous = answers[case.mask_from][0] if case.mask_from in answers else None
            points = [(x, y, label) for (x, y), label in zip(case.points, case.labels, strict=True)]
            if not points and case.box is None and previous is None:
                continue  # its first mask did not fit either
            mask, score = answers[case.kind] = segmenter.predict(points, case.box, previous)
            label = f"bundle-{photo.name}-{case.kind}"
            cases.append(
                {
                    "name": str(case.kind),
                    "points": points,
                    "box": case.box,
                    "previous_mask": previous and writer.array(f"{label}-logits", previous.logits),
                    "mask": writer.array(label, mask.pixels.astype(np.uint8)),
                    "score": score,
                }
            )
        photos.append({"name": photo.name, "pixels": writer.array(f"bundle-{photo.name}", pixels), "cases": cases})
    return {
        "weights_sha256": manifest.weights.sha256,
        "image_size": manifest.image_size,
        "contract_version": CONTRACT_VERSION,
        "targets": targets,
        "photos": photos,
    }
