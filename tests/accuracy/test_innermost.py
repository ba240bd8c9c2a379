"""The innermost pixel is the one that OpenCV's exact distance transform finds."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from mobilesam_export.accuracy.innermost import innermost


@settings(max_examples=200, deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 14), st.integers(1, 14))), st.sampled_from([1, 2, 5]))
def test_it_is_as_deep_as_any_and_the_first_of_these(mask: NDArray[np.bool_], scale: int) -> None:
    mask = np.kron(mask, np.ones((scale, scale + 1), bool))
    x, y, depth = innermost(mask)
    if not mask.any():
        assert (x, y, depth) == (0, 0, 0)
        return
    padded = np.pad(mask, 1).astype(np.uint8)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    assert depth == pytest.approx(distance.max(), rel=1e-6)
    deepest = np.argwhere(distance > distance.max() - 1e-4)[0]
    assert (y, x) == tuple(deepest)


def test_of_a_ring_it_lies_on_the_ring() -> None:
    y, x = np.indices((60, 80))
    squared = (x - 40) ** 2 + (y - 30) ** 2
    ring = (squared < 25**2) & (squared > 9**2)
    found = innermost(ring)
    assert ring[found[1], found[0]]
    assert np.hypot(found[0] - 40, found[1] - 30) == pytest.approx(17, abs=1)
    assert found[2] == pytest.approx(8, abs=1)
