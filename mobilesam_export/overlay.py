"""Pictures of masks on photos, so that a person sees at once whether an export works."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mobilesam_export.parity.cases import Box, Photo, Point, PromptKind
from mobilesam_export.parity.compare import Answers

MASK_COLOUR = (30, 144, 255)
FOREGROUND_COLOUR = (0, 220, 80)
BACKGROUND_COLOUR = (235, 50, 50)
BOX_COLOUR = (255, 210, 0)
_SHEET_KINDS = (PromptKind.POINT, PromptKind.BOX, PromptKind.POINTS, PromptKind.BOX_AND_POINTS)  # what apps use first
SHEET_PHOTOS = 8  # as many of a user's own as are still seen on a screen
_CELL = 256  # pixels
_CAPTION = 18


def draw_overlay(
    photo: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    points: Sequence[Point] = (),
    labels: Sequence[int] = (),
    box: Box | None = None,
) -> Image.Image:
    """Tint a mask on its photo and mark the prompt.

    Args:
        photo: (H, W, 3).
        mask: (H, W).
        points: x, y in the photo's pixels.
        labels: 1 foreground (green), 0 background (red).
        box: XYXY.
    """
    tinted = photo.copy()
    for channel, level in enumerate(MASK_COLOUR):  # by table: floats of a large photo would take gigabytes
        table = (0.45 * np.arange(256) + 0.55 * level).astype(np.uint8)
        tinted[..., channel][mask] = table[photo[..., channel][mask]]
    tinted[_outline(mask)] = 255
    picture = Image.fromarray(tinted)
    draw = ImageDraw.Draw(picture)
    radius = max(3, max(photo.shape[:2]) // 100)
    if box is not None:
        draw.rectangle(box, outline=BOX_COLOUR, width=max(1, radius // 2))
    for (x, y), label in zip(points, labels, strict=True):
        colour = FOREGROUND_COLOUR if label == 1 else BACKGROUND_COLOUR
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=(255, 255, 255))
    return picture


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the mask with a neighbour outside it."""
    inside = np.pad(mask, 1, mode="edge")
    eroded = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return mask & ~eroded


def draw_sheet(photos: Sequence[Photo], answers: Answers, title: str) -> Image.Image:
    """Lay out one picture a photo and prompt kind, from an artifact's answers.

    A single click shows the best of its three masks by predicted IoU, everything else the single mask.
    """
    header = _CAPTION + 6
    sheet = Image.new("RGB", (_CELL * len(photos), header + (_CELL + _CAPTION) * len(_SHEET_KINDS)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 6), title, fill="black")
    for column, photo in enumerate(photos):
        pixels = photo.read()
        for row, kind in enumerate(_SHEET_KINDS):
            case = next(case for case in photo.cases() if case.kind == kind)
            answer = answers[photo.name].by_kind.get(kind)
            if answer is None:  # it does not fit into a decoder of few points
                continue
            several = kind is PromptKind.POINT and len(answer.masks) > 1
            best = 1 + int(answer.iou_predictions[1:].argmax()) if several else 0
            cell = draw_overlay(pixels, answer.masks[best], case.points, case.labels, case.box)
            cell.thumbnail((_CELL - 4, _CELL - 4))
            left, top = column * _CELL, header + row * (_CELL + _CAPTION)
            sheet.paste(cell, (left + (_CELL - cell.width) // 2, top + _CAPTION))
            draw.text((left + 6, top + 4), f"{photo.name}: {kind}, mask {best}", fill="black")
    return sheet
