"""Metrics against values worked out by hand."""

import math

import numpy as np
import pytest

from mobilesam_export.parity import metrics

TWO = np.array([[True, True, False, False]])
OTHER = np.array([[False, True, True, False]])
EMPTY = np.zeros((1, 4), bool)


def test_iou_is_the_shared_part() -> None:
    assert metrics.mask_iou(TWO, OTHER) == pytest.approx(1 / 3)
    assert metrics.mask_iou(TWO, TWO) == 1
    assert metrics.mask_iou(TWO, EMPTY) == 0


def test_two_empty_masks_agree_but_are_not_informative() -> None:
    assert metrics.mask_iou(EMPTY, EMPTY) == 1
    assert not metrics.is_informative(EMPTY)
    assert not metrics.is_informative(~EMPTY)
    assert metrics.is_informative(TWO)


def test_disagreement_and_coverage_are_parts_of_the_photo() -> None:
    assert metrics.disagreement(TWO, OTHER) == 0.5
    assert metrics.coverage(TWO) == 0.5


def test_cosine_is_blind_to_scale_and_psnr_is_not() -> None:
    a = np.array([1, 2, 3], np.float32)
    assert metrics.cosine(a, 2 * a) == pytest.approx(1)
    assert metrics.psnr_db(a, a + 0.2) == pytest.approx(20, abs=1e-3)  # range 2, error 0.2
    assert metrics.psnr_db(a, a) == math.inf


def test_errors_are_relative_to_the_reference() -> None:
    a = np.array([-1, 1], np.float32)
    assert metrics.relative_rms_error(a, a + 0.5) == pytest.approx(0.5)
    assert metrics.scaled_error(a * 10, a * 10 + 1) == pytest.approx(0.1)
    assert metrics.scaled_error(a / 10, a / 10 + 1) == pytest.approx(1)


def test_not_a_number_is_the_worst_of_values() -> None:
    a = np.array([1, 2], np.float32)
    nan = np.array([1, np.nan], np.float32)
    assert metrics.cosine(a, nan) == 0
    assert metrics.psnr_db(a, nan) == -math.inf
    assert metrics.relative_rms_error(a, nan) == math.inf
    assert metrics.scaled_error(a, nan) == math.inf
