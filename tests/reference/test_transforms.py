"""Between image frame and model frame: SAM's rules for sizes, points and masks, over random sizes."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from reference.transforms import (
    boxes_to_model_frame,
    logits_to_masks,
    resize_longest_side,
    resized_size,
    to_image_frame,
    to_model_frame,
    upscale_logits,
)

Size = tuple[int, int]

SIDES = st.integers(1, 6000)
SIZES = st.tuples(SIDES, SIDES)
SMALL_SIZES = st.tuples(st.integers(1, 130), st.integers(1, 130))
IMAGE_SIZES = st.sampled_from([32, 224, 512, 1024])


@given(SIZES, IMAGE_SIZES)
def test_sizes_follow_sams_rule(size: Size, image_size: int) -> None:
    height, width = resized_size(size, image_size)
    scale = image_size * 1.0 / max(size)
    assert (height, width) == tuple(max(1, int(side * scale + 0.5)) for side in size)
    assert max(height, width) == image_size
    assert min(height, width) >= 1


def test_sizes_are_rounded_and_not_cut() -> None:
    assert resized_size((400, 600), 1024) == (683, 1024)
    assert resized_size((1500, 2250), 1024) == (683, 1024)
    assert resized_size((2250, 1500), 1024) == (1024, 683)
    assert resized_size((300, 451), 1024) == (681, 1024)  # 681.15
    assert resized_size((100, 200), 1024) == (512, 1024)  # enlarged, too
    assert resized_size((1, 5000), 1024) == (1, 1024)  # SAM's rule alone would give no rows


@given(SIZES, IMAGE_SIZES, st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=1, max_size=5))
def test_points_come_back(size: Size, image_size: int, points: list[tuple[float, float]]) -> None:
    there = to_model_frame(np.array(points), size, image_size)
    np.testing.assert_allclose(to_image_frame(there, size, image_size), points, rtol=1e-12, atol=1e-9)


@given(SIZES, IMAGE_SIZES)
def test_corners_meet_corners(size: Size, image_size: int) -> None:
    height, width = resized_size(size, image_size)
    corners = to_model_frame(np.array([[0, 0], [size[1], size[0]]]), size, image_size)
    np.testing.assert_allclose(corners, [[0, 0], [width, height]], rtol=1e-12)
    box = boxes_to_model_frame(np.array([0, 0, size[1], size[0]]), size, image_size)
    np.testing.assert_allclose(box, [0, 0, width, height], rtol=1e-12)


def test_x_and_y_are_scaled_apart_by_the_rounded_sizes() -> None:
    point = to_model_frame(np.array([300.0, 200.0]), (400, 600), 1024)
    np.testing.assert_allclose(point, [300 * 1024 / 600, 200 * 683 / 400], rtol=1e-15)
    boxes = boxes_to_model_frame(np.array([[[60, 40, 300, 200]]]), (400, 600), 1024)
    np.testing.assert_allclose(boxes, [[[60 * 1024 / 600, 40 * 683 / 400, 512, 341.5]]], rtol=1e-15)


@given(st.data(), SIZES, IMAGE_SIZES)
def test_points_of_a_crop_keep_their_place_in_the_crop(data: st.DataObject, size: Size, image_size: int) -> None:
    x0, y0 = data.draw(st.integers(0, size[1] - 1)), data.draw(st.integers(0, size[0] - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, size[1])), data.draw(st.integers(y0 + 1, size[0]))
    crop = (y1 - y0, x1 - x0)
    point = np.array([data.draw(st.floats(0, crop[1])), data.draw(st.floats(0, crop[0]))])
    there = to_model_frame(point, crop, image_size)
    height, width = resized_size(crop, image_size)
    assert (there >= 0).all()
    assert there[0] <= width * (1 + 1e-12) and there[1] <= height * (1 + 1e-12)
    origin = np.array([x0, y0])
    np.testing.assert_allclose(to_image_frame(there, crop, image_size) + origin, point + origin, atol=1e-6)


@given(st.tuples(st.integers(1, 300), st.integers(1, 300)), st.sampled_from([32, 96]))
@settings(deadline=None)
def test_a_photo_takes_its_resized_size(size: Size, image_size: int) -> None:
    resized = resize_longest_side(np.full((*size, 3), 77, np.uint8), image_size)
    assert resized.shape == (*resized_size(size, image_size), 3)
    assert resized.dtype == np.uint8
    assert (resized == 77).all()


@given(SMALL_SIZES, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_masks_come_back_through_two_bilinear_steps(size: Size, seed: int) -> None:
    low_res = np.random.default_rng(seed).standard_normal((1, 2, 16, 16)).astype(np.float32)
    scale = 64 / max(size)
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    full = F.interpolate(torch.from_numpy(low_res), (64, 64), mode="bilinear", align_corners=False)
    expected = F.interpolate(full[..., :height, :width], size, mode="bilinear", align_corners=False)
    assert torch.equal(upscale_logits(torch.from_numpy(low_res), size, 64), expected)
    np.testing.assert_array_equal(logits_to_masks(low_res, size, 64), expected.numpy() > 0)


@given(SMALL_SIZES)
@settings(deadline=None)
def test_a_constant_stays_constant_and_zero_is_outside(size: Size) -> None:
    logits = np.stack([np.full((8, 8), value, np.float32) for value in (1.0, 0.0, -1.0)])[None]
    masks = logits_to_masks(logits, size, 32)
    assert masks.shape == (1, 3, *size)
    assert masks[0, 0].all()
    assert not masks[0, 1:].any()


def test_what_lies_in_the_padding_does_not_show() -> None:
    low_res = torch.zeros(1, 1, 16, 16)
    low_res[..., 9:, :] = 50.0  # below a photo of 100 x 50, which ends at row 8 of 16
    assert (upscale_logits(low_res, (50, 100), 64)[..., :48, :] == 0).all()


def test_masks_of_several_prompts_do_not_mix() -> None:
    low_res = np.random.default_rng(0).standard_normal((3, 2, 16, 16)).astype(np.float32)
    together = logits_to_masks(low_res, (37, 53), 64)
    for b in range(3):
        for c in range(2):
            alone = logits_to_masks(low_res[b : b + 1, c : c + 1], (37, 53), 64)
            np.testing.assert_array_equal(together[b, c], alone[0, 0])
