"""Overlays mark what they should, where they should."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mobilesam_export.overlay import FOREGROUND_COLOUR, MASK_COLOUR, draw_overlay, draw_sheet
from mobilesam_export.parity.cases import PHOTOS, Photo
from mobilesam_export.parity.compare import Answer, PhotoAnswers
from reference.images import save_picture


def test_only_the_mask_is_tinted_and_the_prompt_is_drawn() -> None:
    photo = np.full((60, 80, 3), 100, np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[10:30, 10:30] = True
    pixels = np.asarray(draw_overlay(photo, mask, [(60, 40)], [1]))
    assert pixels.shape == photo.shape
    assert pixels[20, 20].tolist() == [int(0.45 * 100 + 0.55 * level) for level in MASK_COLOUR]
    assert pixels[10, 10].tolist() == [255, 255, 255]  # its outline
    assert (pixels[50, 10] == 100).all()
    assert tuple(pixels[40, 60]) == FOREGROUND_COLOUR
    assert (photo == 100).all()  # the photo itself is left alone


def test_the_sheet_shows_one_click_and_one_box_first() -> None:
    photos = PHOTOS[1:2]
    captions: list[tuple[int, str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageDraw.ImageDraw, "text", lambda self, xy, text, **_: captions.append((xy[1], text)))
        draw_sheet(photos, {"coffee": answers_of(photos[0])}, "title")
    kinds = [text.split(": ")[1].split(",")[0] for _, text in sorted(captions)[1:]]
    assert kinds == ["point", "box", "points", "box and points"]


def answers_of(photo: Photo) -> PhotoAnswers:
    """Empty masks for every prompt."""
    height, width = photo.read().shape[:2]
    masks, iou = np.zeros((4, height, width), bool), np.zeros(4, np.float32)
    answer = Answer(masks, iou, np.zeros((4, 8, 8), np.float32))
    return PhotoAnswers(np.zeros((1, 1, 1, 1), np.float32), {case.kind: answer for case in photo.cases()})


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = Image.new("RGB", (4, 4))
    save_picture(picture, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def half(self: Image.Image, path: Path, kind: str) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="disk full"):
        save_picture(picture, tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before
