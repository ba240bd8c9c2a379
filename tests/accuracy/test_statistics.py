"""Figures of known numbers."""

import numpy as np
import pytest

from mobilesam_export.accuracy.statistics import calibration, figures, mean_with_interval, sizes_of


def test_the_interval_is_that_of_photos_and_not_of_objects() -> None:
    rng = np.random.default_rng(1)
    of_photo = rng.normal(0.7, 0.1, 200)
    photos = np.repeat(np.arange(200), 25)
    values = of_photo[photos]  # all objects of a photo alike: 5,000 objects know no more than 200 photos
    found = mean_with_interval(values, photos)
    assert found["mean"] == pytest.approx(values.mean())
    half = 1.96 * of_photo.std() / np.sqrt(200)
    assert found["high"] - found["mean"] == pytest.approx(half, rel=0.15)
    assert found["mean"] - found["low"] == pytest.approx(half, rel=0.15)
    assert mean_with_interval(values, photos) == found  # the same every time


def test_of_one_photo_the_interval_is_its_mean() -> None:
    found = mean_with_interval(np.array([0.2, 0.6]), np.array([7, 7]))
    assert found == pytest.approx({"mean": 0.4, "low": 0.4, "high": 0.4})


def test_sizes_are_cocos_and_both_sides_of_a_bound_count() -> None:
    sizes = sizes_of(np.array([1.0, 1023.9, 1024.0, 1024.1, 9216.0, 9216.5]))
    assert {name: mine.tolist() for name, mine in sizes.items()} == {
        "small": [True, True, True, False, False, False],
        "medium": [False, False, True, True, True, False],
        "large": [False, False, False, False, True, True],
    }


def test_calibration_of_known_promises() -> None:
    found = calibration(np.array([0.95, 0.93, 0.41, 1.2, -0.1]), np.array([0.90, 1.00, 0.61, 0.9, 0.0]))
    assert found["mean_absolute_error"] == pytest.approx((0.05 + 0.07 + 0.2 + 0.3 + 0.1) / 5)
    assert found["bias"] == pytest.approx((0.05 - 0.07 - 0.2 + 0.3 - 0.1) / 5)
    assert [(entry["from"], entry["objects"]) for entry in found["bins"]] == [(0.0, 1), (0.4, 1), (0.9, 3)]
    top = abs((0.95 + 0.93 + 1.2) - (0.9 + 1.0 + 0.9))
    assert found["expected_error"] == pytest.approx((0.1 + 0.2 + top) / 5)


def test_figures_tell_shares_and_the_best_alternative() -> None:
    found = figures([0.5, 0.8, 0.95], [0.5, 0.8, 0.95], [0.6, 0.8, 0.99], [100, 2000, 10000], [0, 0, 1])
    assert found["objects"] == 3
    assert found["share_above"] == pytest.approx({"0.5": 1.0, "0.75": 2 / 3, "0.9": 1 / 3})
    assert found["best_miou"] == pytest.approx((0.6 + 0.8 + 0.99) / 3)
    assert found["by_size"]["large"] == pytest.approx({"objects": 1, "mean": 0.95, "low": 0.95, "high": 0.95})
    assert found["predicted_iou"]["mean_absolute_error"] == 0
