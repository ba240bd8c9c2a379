"""Segment one photo with a bundle and write the mask and an overlay picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mobilesam_export.errors import ExportError
from mobilesam_export.overlay import draw_overlay
from mobilesam_export.predictor import load_bundle
from reference.images import read_image, save_picture

Numbers = Sequence[float]


def segment(
    photo: Path,
    bundle: Path,
    target: str | None,
    foreground: Sequence[Numbers],
    background: Sequence[Numbers],
    box: Numbers | None,
    out: Path,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``out`` (0 and 255, the photo's size) and ``out`` with ``-overlay`` in its name.

    A single point gives the best of the three alternative masks by predicted IoU, any other prompt the single mask.

    Args:
        foreground, background: x, y in the photo's pixels.
        box: XYXY in the photo's pixels.

    Raises:
        ExportError: a prompt outside the photo, no prompt, or output that exists.
        ImageError: if the photo is none.
    """
    overlay = out.with_name(f"{out.stem}-overlay.png")
    present = [str(path) for path in (out, overlay) if path.exists()]
    if present and not overwrite:
        raise ExportError(f"{' and '.join(present)} exists; choose another -o, or replace it with --overwrite")
    if out.suffix.lower() != ".png":
        raise ExportError(f"got output {out}, expected a name that ends in .png; masks are written as PNG")
    if not foreground and not background and box is None:
        raise ExportError("got no prompt; give --point X,Y or --box X0,Y0,X1,Y1")
    pixels = read_image(photo)
    height, width = pixels.shape[:2]
    points = [*foreground, *background]
    labels = [1] * len(foreground) + [0] * len(background)
    corners = [] if box is None else [box[:2], box[2:]]
    for x, y in [*points, *corners]:
        if not (0 <= x <= width and 0 <= y <= height):
            raise ExportError(f"({x:g}, {y:g}) is outside the photo of {width} x {height} pixels; give x,y inside it")
    if box is not None and not (box[0] < box[2] and box[1] < box[3]):
        raise ExportError(f"got box {','.join(f'{n:g}' for n in box)}, expected x0 < x1 and y0 < y1; swap its corners")
    with load_bundle(bundle, target) as predictor:
        predictor.set_image(pixels)
        one_click = len(foreground) == len(points) == 1 and box is None
        masks, iou_predictions, _ = predictor.predict(points or None, labels or None, box, multimask_output=one_click)
    mask = masks[int(iou_predictions.argmax())]
    try:
        save_picture(Image.fromarray(mask.astype(np.uint8) * 255), out)
        save_picture(draw_overlay(pixels, mask, [(x, y) for x, y in points], labels, box and tuple(box)), overlay)  # type: ignore[arg-type]
    except OSError as error:
        raise ExportError(f"{out} cannot be written ({error.strerror or error}); choose another -o") from error
    return [out, overlay]
