"""Figures 4 to 6 of the paper: teacher and student side by side, by a point, a box, and everything at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mobilesam_export.parity.cases import Photo
from reference import Predictor
from reference.everything import segment_everything
from reference.everything_options import EverythingOptions

COLOUR = np.array((30, 144, 255)) / 255
EVERYTHING = EverythingOptions(points_per_side=8, pred_iou_thresh=0.5, stability_score_thresh=0.6)


def draw_figures(
    teacher: Predictor, student: Predictor, names: tuple[str, str], photos: Sequence[Photo], folder: Path
) -> list[Path]:
    """Write ``paper-point.png``, ``paper-box.png`` and ``paper-everything.png``: a row a photo, a column a model."""
    paths = []
    for kind in ("point", "box", "everything"):
        figure, axes = plt.subplots(len(photos), 2, figsize=(8, 3.6 * len(photos)), squeeze=False)
        for photo, row in zip(photos, axes, strict=True):
            pixels = photo.read()
            for axis, predictor, name in zip(row, (teacher, student), names, strict=True):
                _draw(axis, predictor, photo, pixels, kind)
                axis.set_title(f"{photo.name}: {name}", fontsize=9)
                axis.axis("off")
        figure.tight_layout()
        paths.append(folder / f"paper-{kind}.png")
        figure.savefig(paths[-1], dpi=80)
        plt.close(figure)
    return paths


def _draw(axis: Any, predictor: Predictor, photo: Photo, pixels: NDArray[np.uint8], kind: str) -> None:
    axis.imshow(pixels)
    if kind == "everything":
        rng = np.random.default_rng(0)
        found = segment_everything(predictor, pixels, EVERYTHING)
        for mask in sorted(found, key=lambda one: -int(one.mask.sum())):
            _overlay(axis, mask.mask, rng.uniform(0.2, 1, 3))
        return
    predictor.set_image(pixels)
    if kind == "point":
        masks, scores, _ = predictor.predict(np.array([photo.point]), np.array([1]))
        axis.plot(*photo.point, "*", color="lime", markersize=12, markeredgecolor="black")
    else:
        masks, scores, _ = predictor.predict(box=np.array(photo.box))
        left, top, right, bottom = photo.box
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="lime"))
    _overlay(axis, masks[int(scores.argmax())], COLOUR)


def _overlay(axis: Any, mask: NDArray[np.bool_], colour: NDArray[np.float64]) -> None:
    axis.imshow(np.concatenate([np.broadcast_to(colour, (*mask.shape, 3)), 0.55 * mask[..., None]], axis=2))
