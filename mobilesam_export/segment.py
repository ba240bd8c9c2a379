"""Segment photos with a bundle and write masks, overlay pictures, cutouts and logits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.errors import ExportError
from mobilesam_export.overlay import draw_overlay
from mobilesam_export.segmenter import Box, check, is_ambiguous
from reference.images import read_image, save_picture
from reference.photo_folder import photo_files
from reference.regular_file import regular_file_size

_LARGEST_LOGITS_BYTES = 16 * 10**6  # of --mask-input: float64 at the largest S is 2 MB
LabelledPoint = tuple[float, float, int]


@dataclass(frozen=True)
class Request:
    """What is asked of every photo.

    Attributes:
        points: x, y in the photo's pixels, and 1 on the object or 0 not on it.
        box: XYXY in the photo's pixels.
        mask_input: file with the logits of an earlier answer, to be refined.
        all_masks: write the three alternatives too.
    """

    points: Sequence[LabelledPoint] = ()
    box: Box | None = None
    mask_input: Path | None = None
    all_masks: bool = False


@dataclass(frozen=True)
class Places:
    """Where the answer about one photo goes.

    Attributes:
        mask: 0 and 255, the photo's size.
        overlay: the photo with mask and prompt on it.
        cutout: the photo's size, transparent outside the mask.
        logits: (1, S/4, S/4) float32, what ``Request.mask_input`` takes.
        alternatives: the decoder's rows 1 to 3 as masks.
    """

    mask: Path
    overlay: Path
    cutout: Path | None = None
    logits: Path | None = None
    alternatives: tuple[Path, ...] = ()

    @property
    def all(self) -> list[Path]:
        """All files that are asked for."""
        optional = [path for path in (self.cutout, self.logits) if path is not None]
        return [self.mask, self.overlay, *self.alternatives, *optional]


@dataclass(frozen=True)
class Answer:
    """The mask that was chosen for a photo.

    Attributes:
        row: of the decoder: 0 the single mask, 1 to 3 an alternative, None if the decoder chose by itself.
        iou_predictions: of the rows it was chosen from.
        size: (H, W) of the photo.
        area: pixels in the mask.
        mask_box: XYXY of its outermost pixels, both inclusive; None if it is empty.
    """

    photo: Path
    places: Places
    row: int | None
    iou_predictions: dict[str, float] = field(default_factory=dict)
    size: tuple[int, int] = (0, 0)
    area: int = 0
    mask_box: tuple[int, int, int, int] | None = None

    @property
    def iou_prediction(self) -> float:
        """Of the mask that was chosen, the best of those it was chosen from."""
        return max(self.iou_predictions.values())

    def describe(self) -> str:
        """One line for a person."""
        chosen = (
            f"mask {self.row}, the best of {len(self.iou_predictions)}"
            if self.row
            else "the single mask"
            if self.row == 0
            else "the decoder's choice"
        )
        share = 100 * self.area / (self.size[0] * self.size[1])
        empty = "" if self.area else "; it is empty: try another point, or a box"
        scores = ", ".join(f"{score:.3f}" for score in self.iou_predictions.values())
        return f"{self.photo.name}: {chosen}, predicted IoU {scores}, {share:.1f} % of the photo{empty}"

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        height, width = self.size
        return {
            "photo": str(self.photo),
            "width": width,
            "height": height,
            "mask": str(self.places.mask),
            "overlay": str(self.places.overlay),
            "cutout": self.places.cutout and str(self.places.cutout),
            "logits": self.places.logits and str(self.places.logits),
            "alternatives": [str(path) for path in self.places.alternatives],
            "row": self.row,
            "iou_prediction": self.iou_prediction,
            "iou_predictions": self.iou_predictions,
            "area_pixels": self.area,
            "mask_box": self.mask_box,
        }


def photos_in(paths: Sequence[Path]) -> list[Path]:
    """The photos that were named, and those that lie in named folders (not deeper), by name.

    Raises:
        ImageError: a folder without any.
    """
    photos: list[Path] = []
    for path in paths:
        photos += photo_files(path) if path.is_dir() else [path]
    return photos


def plan(
    photos: Sequence[Path],
    out: Path | None,
    several: bool,
    *,
    cutout: Path | None = None,
    logits: Path | None = None,
    all_masks: bool = False,
    overwrite: bool = False,
) -> list[Places]:
    """Where everything goes; looked at before any work.

    Args:
        out, cutout, logits: files for one photo, folders for ``several``.

    Raises:
        ExportError: another ending than that of the format, a file that exists, or two answers in one file.
    """
    out = out or Path("masks" if several else "mask.png")

    def place(base: Path, photo: Path, ending: str) -> Path:
        if several:
            return base / f"{photo.stem}{ending}"
        if base.suffix.lower() != ending:
            raise ExportError(f"got output {base}, expected a name that ends in {ending}")
        return base

    planned = []
    for photo in photos:
        mask = place(out, photo, ".png")
        planned.append(
            Places(
                mask,
                mask.with_name(f"{mask.stem}-overlay.png"),
                cutout and place(cutout, photo, ".png"),
                logits and place(logits, photo, ".npy"),
                tuple(mask.with_name(f"{mask.stem}-{row}.png") for row in (1, 2, 3)) if all_masks else (),
            )
        )
    _require_apart(photos, planned)
    present = [str(path) for places in planned for path in places.all if path.exists()]
    if present and not overwrite:
        raise ExportError(
            f"{_listed(present)} {'exists' if len(present) == 1 else 'exist'}; choose another -o, or replace "
            f"{'it' if len(present) == 1 else 'them'} with --overwrite"
        )
    return planned


def _require_apart(photos: Sequence[Path], planned: Iterable[Places]) -> None:
    """No two answers in one file, and none in a photo's place."""
    taken = {photo.resolve(): photo for photo in photos}
    for photo, places in zip(photos, planned, strict=True):
        for path in places.all:
            other = taken.setdefault(path.resolve(), photo)
            if other is not photo or path.resolve() == photo.resolve():
                raise ExportError(
                    f"the answer about {photo} would go to {path}, which is taken by {other}; choose another place"
                )
            taken[path.resolve()] = Path(f"another file of {photo}")


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:3]) + ([f"{len(names) - 3} more"] if len(names) > 3 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def segment(photo: Path, predictor: BundlePredictor, request: Request, places: Places) -> Answer:
    """Segment one photo and write what ``places`` names.

    A single point gives the best of the three alternative masks by predicted IoU, any other prompt the single mask.

    Raises:
        ExportError: a file that cannot be written, or alternatives of a decoder that has none.
        ImageError: if the photo is none.
        SegmenterError: a prompt outside the photo, or no prompt.
    """
    if request.all_masks and predictor.single_mask:
        raise ExportError("--all-masks: this bundle's decoder chooses one mask; export it without --single-mask")
    logits = None if request.mask_input is None else read_logits(request.mask_input)
    pixels = read_image(photo)
    size = height, width = pixels.shape[0], pixels.shape[1]
    check(request.points, request.box, logits is not None, size, predictor.runtime.max_points)
    predictor.set_image(pixels)
    points = [point[:2] for point in request.points]
    labels = [point[2] for point in request.points]
    several = is_ambiguous(request.points, request.box, logits is not None)

    def ask(multimask_output: bool) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
        return predictor.predict(points or None, labels or None, request.box, logits, multimask_output)

    masks, iou_predictions, low_res_masks = ask(several)
    best = int(iou_predictions.argmax())
    mask = masks[best]
    alternatives = () if not request.all_masks else masks if several else ask(True)[0]
    first = 1 if several else 0
    try:
        _save_mask(mask, places.mask)
        save_picture(draw_overlay(pixels, mask, points, labels, request.box), places.overlay)
        for path, alternative in zip(places.alternatives, alternatives, strict=True):
            _save_mask(alternative, path)
        if places.cutout is not None:
            save_picture(cut_out(pixels, mask), places.cutout)
        if places.logits is not None:
            _save_logits(low_res_masks[best : best + 1], places.logits)
    except OSError as error:
        raise ExportError(f"{places.mask} cannot be written ({error.strerror or error}); choose another -o") from error
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return Answer(
        photo,
        places,
        None if predictor.single_mask else first + best,
        {str(first + i): round(float(iou), 6) for i, iou in enumerate(iou_predictions)},
        (height, width),
        int(mask.sum()),
        (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])) if len(columns) else None,
    )


def read_logits(path: Path) -> NDArray[np.float32]:
    """The logits of an earlier answer, (1, S/4, S/4), from the ``.npy`` file that ``--logits`` or ``numpy.save`` wrote.

    Raises:
        ExportError: if it is no such file.
    """
    regular_file_size(path, "mask input (.npy)", _LARGEST_LOGITS_BYTES, ExportError)
    try:
        logits = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a header may claim any size
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise ExportError(f"{path} is no .npy file of numbers ({error}); write one with --logits OUT.npy") from error
    if not isinstance(logits, np.ndarray) or logits.dtype.kind not in "fiu":
        raise ExportError(f"{path} is no .npy file of numbers; write one with --logits OUT.npy")
    array: NDArray[np.float32] = logits.astype(np.float32)
    return array[None] if array.ndim == 2 else array


def cut_out(photo: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Image.Image:
    """The photo with an alpha channel, of its size; outside the mask transparent and black, so that nothing leaks."""
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    np.copyto(pixels[..., :3], photo, where=mask[..., None])
    np.copyto(pixels[..., 3], 255, where=mask)
    return Image.fromarray(pixels)


def _save_mask(mask: NDArray[np.bool_], path: Path) -> None:
    save_picture(Image.fromarray(mask.astype(np.uint8) * 255), path)


def _save_logits(logits: NDArray[np.float32], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            np.save(file, logits)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
