"""Losses against values computed by hand."""

import math

import torch

from reference.training.losses import balanced_cross_entropy, dice_loss, focal_loss, mask_iou

LOGITS = torch.tensor([[[4.0, -4.0], [0.0, -4.0]]])
TARGET = torch.tensor([[[True, False], [True, False]]])


def test_iou_counts_pixels_above_zero() -> None:
    assert mask_iou(LOGITS, TARGET).tolist() == [0.5]
    assert mask_iou(-torch.ones(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool)).tolist() == [0.0]


def test_cross_entropy_weighs_mask_and_surroundings_alike() -> None:
    right, unsure = math.log1p(math.exp(-4)), math.log(2)
    torch.testing.assert_close(
        balanced_cross_entropy(LOGITS, TARGET), torch.tensor([0.5 * (right + unsure) / 2 + 0.5 * right])
    )


def test_dice_is_smoothed_by_one_pixel() -> None:
    p = 1 / (1 + math.exp(-4))
    found = p + (1 - p) + 0.5 + (1 - p)
    torch.testing.assert_close(dice_loss(LOGITS, TARGET), torch.tensor([1 - (2 * (p + 0.5) + 1) / (found + 2 + 1)]))


def test_focal_loss_forgets_what_is_right() -> None:
    q = 1 / (1 + math.exp(4))
    expected = (3 * -math.log(1 - q) * q**2 + math.log(2) * 0.25) / 4
    torch.testing.assert_close(focal_loss(LOGITS, TARGET), torch.tensor([expected]))
