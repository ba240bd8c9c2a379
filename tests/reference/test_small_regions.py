"""Small holes and islands go as SAM's generator lets them go: compared with its rule, written with OpenCV."""

import cv2
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from reference.small_regions import label_regions, without_small_regions

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 16), st.integers(1, 16)))


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_regions_are_those_of_opencv(mask: NDArray[np.bool_]) -> None:
    labels, areas = label_regions(mask)
    count, expected, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    assert len(areas) == count - 1
    pairs = np.unique(np.stack([labels[mask], expected[mask]]), axis=1)
    assert pairs.shape[1] == len(areas)  # each number of ours stands for one of theirs
    assert all(areas[ours - 1] == statistics[theirs, cv2.CC_STAT_AREA] for ours, theirs in pairs.T)
    assert not labels[~mask].any()
    firsts = [np.flatnonzero(labels == number)[0] for number in range(1, len(areas) + 1)]
    assert firsts == sorted(firsts)


def official(mask: NDArray[np.bool_], area: int) -> NDArray[np.bool_]:
    for holes in (True, False):
        _, regions, statistics, _ = cv2.connectedComponentsWithStats((holes ^ mask).astype(np.uint8), connectivity=8)
        sizes = statistics[1:, cv2.CC_STAT_AREA]
        small = [number for number, size in enumerate(sizes, 1) if size < area]
        if not small:
            continue
        if holes:
            mask = np.isin(regions, [0, *small])
        else:
            large = [number for number in range(1, len(sizes) + 1) if number not in small]
            # Of equally large islands SAM keeps the one that OpenCV numbered first, by blocks of pixels; we, as the
            # hosts of apps/, the first in reading order.
            first_seen = [int(np.flatnonzero(regions == number)[0]) for number in range(1, len(sizes) + 1)]
            largest = max(range(len(sizes)), key=lambda i: (sizes[i], -first_seen[i]))
            mask = np.isin(regions, large or [largest + 1])
    return mask


@settings(max_examples=300, deadline=None)
@example(np.array([[False, False, True], [True, False, False]]), 2)
@given(MASKS, st.integers(1, 40))
def test_what_is_small_goes_as_in_sams_generator(mask: NDArray[np.bool_], area: int) -> None:
    found, changed = without_small_regions(mask, area)
    expected = official(mask, area)
    np.testing.assert_array_equal(found, expected)
    assert changed or (found == mask).all()


def test_a_region_that_winds_through_a_large_picture_is_one() -> None:
    mask = np.zeros((1000, 600), bool)
    mask[::4] = True
    for row in range(0, 1000, 8):
        mask[row : row + 4, -1] = True
        mask[row + 4 : row + 8, 0] = True
    _, areas = label_regions(mask)
    assert areas.tolist() == [mask.sum()]
