"""Polygons are filled as COCO's own program fills them, and nonsense costs one line."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from reference.polygons import fill_polygons


@st.composite
def outlines(draw: st.DrawFn) -> tuple[list[list[float]], tuple[int, int]]:
    size = draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    fine = draw(st.sampled_from([1, 2, 1000]))  # whole and half pixels are where rounding goes wrong
    within = st.integers(int(-0.5 * max(size) * fine), int(1.5 * max(size) * fine)).map(lambda n: n / fine)
    corners = st.lists(st.tuples(within, within), min_size=3, max_size=10)
    return [[n for corner in draw(corners) for n in corner] for _ in range(draw(st.integers(1, 3)))], size


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of pycocotools itself
@settings(max_examples=400, deadline=None)
@given(outlines())
def test_every_outline_is_filled_to_the_pixel_as_by_pycocotools(
    drawn: tuple[list[list[float]], tuple[int, int]],
) -> None:
    polygons, size = drawn
    expected = coco.decode(coco.merge(coco.frPyObjects(polygons, *size))).astype(bool)
    np.testing.assert_array_equal(fill_polygons(polygons, size), expected)


def test_a_square_covers_its_pixels() -> None:
    mask = fill_polygons([[2, 1, 6, 1, 6, 4, 2, 4]], (6, 8))
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:6] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("polygons", "reason"),
    [
        ([], "no polygon"),
        ("abc", "no polygon"),
        ([[1, 2, 3, 4]], "a polygon of 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon of 7 numbers"),
        ([7], "a polygon of no numbers"),
        ([[1, 2, 3, 4, 5, "x"]], "something else than numbers"),
        ([[1, 2, 3, 4, 5, [6]]], "something else than numbers"),
        ([[1, 2, 3, 4, 5, math.nan]], "far outside"),
        ([[1, 2, 3, 4, 5, 1e300]], "far outside"),
        ([[1, 2, 3, 4, 5, 10**400]], "something else than numbers"),
    ],
)
def test_what_is_no_polygon_has_a_reason(polygons: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        fill_polygons(polygons, (8, 8))


def test_an_outline_that_would_take_all_memory_is_refused_before_it_does() -> None:
    there_and_back = [0, 0, 60_000, 60_000] * 500
    with pytest.raises(ValueError, match="outline is longer than 10,000,000 pixels"):
        fill_polygons([there_and_back], (60_000, 1))
