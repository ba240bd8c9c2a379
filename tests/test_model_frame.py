"""A photo in the model frame and the slots of a prompt: one function each, for every target and its calibration."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilesam_export.contract import PAD_COLOUR, PAD_COLOUR_8BIT, PointLabel
from mobilesam_export.errors import ExportError
from mobilesam_export.model_frame import mirrored_photos, model_frame
from mobilesam_export.point_slots import fill_slots

RESIZED = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)


def test_a_photo_lies_in_the_top_left_corner_and_the_rest_has_the_pad_colour() -> None:
    frame = model_frame(RESIZED, 4)
    assert frame.shape == (1, 3, 4, 4) and frame.dtype == np.float32 and frame.flags.c_contiguous
    np.testing.assert_array_equal(frame[0, :, :2], RESIZED.transpose(2, 0, 1))
    expected = np.broadcast_to(np.array(PAD_COLOUR, np.float32)[:, None, None], (3, 2, 4))
    np.testing.assert_array_equal(frame[0, :, 2:], expected)


def test_bytes_are_padded_with_the_rounded_colour_and_may_have_their_channels_last() -> None:
    frame = model_frame(RESIZED, 4, pad_colour=PAD_COLOUR_8BIT, dtype=np.uint8, channels_first=False)
    assert frame.shape == (1, 4, 4, 3) and frame.dtype == np.uint8 and frame.flags.c_contiguous
    np.testing.assert_array_equal(frame[0, :2], RESIZED)
    assert (frame[0, 2:] == PAD_COLOUR_8BIT).all()


def test_calibration_photos_are_mirrored(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = 200
    Image.fromarray(pixels).save(tmp_path / "left.png")
    (mirrored,) = mirrored_photos(8, [tmp_path / "left.png"])
    np.testing.assert_array_equal(mirrored, pixels[:, ::-1])
    assert [max(photo.shape) for photo in mirrored_photos(64)] == [64] * 4  # the bundled ones


def test_slots_that_a_prompt_leaves_are_absent() -> None:
    coords, labels = np.array([[[3.0, 4.0]], [[5.0, 6.0]]]), np.array([[1.0], [0.0]])
    filled, kinds = fill_slots(coords, labels, 3)
    np.testing.assert_array_equal(filled, [[[3, 4], [0, 0], [0, 0]], [[5, 6], [0, 0], [0, 0]]])
    np.testing.assert_array_equal(kinds, [[1, PointLabel.ABSENT, PointLabel.ABSENT], [0, -2, -2]])
    assert filled.dtype == kinds.dtype == np.float32
    np.testing.assert_array_equal(fill_slots(coords, labels, 1)[0], coords)
    with pytest.raises(ExportError, match=r"got 1 point slots .* this decoder holds 0; give fewer points"):
        fill_slots(coords, labels, 0)
