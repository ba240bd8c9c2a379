"""The part of a photo where a mask can be has the logits that the whole would have; the rest is below the floor."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from reference.transforms import upscale_logits
from reference.upscaling import Upscaler

ROUNDING = 1e-5  # of logits up to 20 in float32, summed in another order


def check(logits: NDArray[np.float32], size: tuple[int, int], image_size: int, floor: float) -> tuple[int, int]:
    whole = upscale_logits(torch.from_numpy(logits)[None, None], size, image_size)[0, 0].numpy()
    region = Upscaler(size, image_size).region(logits, floor)
    height, width = region.logits.shape
    part = (slice(region.top, region.top + height), slice(region.left, region.left + width))
    np.testing.assert_allclose(region.logits, whole[part], rtol=0, atol=ROUNDING)
    outside = np.ones(size, bool)
    outside[part] = False
    assert not (whole[outside] > floor + ROUNDING).any()
    return height, width


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from([32, 64, 128]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, -1.0, 2.0]),
)
def test_a_part_is_what_the_whole_has_there(size: tuple[int, int], image_size: int, seed: int, floor: float) -> None:
    rng = np.random.default_rng(seed)
    logits = np.full((image_size // 4,) * 2, -5, np.float32)
    a, b, c, d = sorted(rng.integers(0, image_size // 4 + 1, 2)) + sorted(rng.integers(0, image_size // 4 + 1, 2))
    logits[a:b, c:d] = rng.normal(0, 6, (b - a, d - c))
    check(logits, size, image_size, floor)


@pytest.mark.parametrize("size", [(400, 600), (1500, 900), (3, 900), (1, 1)])
def test_photos_of_ordinary_and_odd_sizes(size: tuple[int, int]) -> None:
    logits = np.random.default_rng(1).normal(0, 6, (256, 256)).astype(np.float32)
    assert check(logits, size, 1024, -1.0) == size


def test_a_small_mask_takes_a_small_part() -> None:
    logits = np.full((256, 256), -9, np.float32)
    logits[100:110, 50:60] = 9
    height, width = check(logits, (400, 600), 1024, -1.0)
    assert 20 < height < 40 and 20 < width < 40


def test_of_nothing_above_the_floor_there_is_nothing() -> None:
    assert check(np.full((16, 16), -3, np.float32), (30, 40), 64, -1.0) == (0, 0)
