"""The marks' strength is the one with which training prompts are answered best, and only the marks are scaled."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reference.mobile_sam import MobileSam
from reference.training import marks
from reference.training.channels import KEY_ZERO, NEAR_MARKS, OUTSIDE, prepare
from reference.training.construct import FAR_WEIGHT, construct
from reference.training.decode import Prompts
from reference.training.prompts import PromptBatch
from reference.training.scene_cache import SceneCache

EMPTY = Prompts(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2))
TRUTH = torch.ones(1, 1, 4, 4, dtype=torch.bool)


def test_the_best_factor_is_found_and_nothing_but_the_marks_is_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    sam = MobileSam()
    prepare(sam)
    construct(sam, torch.randn(512, 256))
    upscaling: Any = sam.mask_decoder.output_upscaling
    before = upscaling[0].weight.detach().clone()
    (channel,) = before[OUTSIDE].sum((1, 2)).nonzero().flatten().tolist()

    def answer(sam: MobileSam, embeddings: Tensor, prompts: Prompts, offset: tuple[int, int]) -> tuple[Tensor, None]:
        factor = float(upscaling[0].weight[NEAR_MARKS[3], channel, 0, 0]) / (3 * FAR_WEIGHT)
        logits = torch.full((1, 1, 4, 4, 4), -1.0)
        logits[..., : round(4 - 8 * abs(factor - 1.3)), :] = 1.0  # all rows at 1.3, fewer the farther from it
        return logits, None

    def prompted(*_: object) -> Iterator[tuple[Tensor, PromptBatch]]:
        yield torch.zeros(1), PromptBatch(EMPTY, TRUTH, TRUTH[:, :, None])

    monkeypatch.setattr(marks, "decode_crop", answer)
    monkeypatch.setattr(marks, "_prompted", prompted)
    nothing = np.zeros((0, 4, 4, 3), np.uint8)  # `prompted` stands in for what would read the cache
    assert marks.balance_marks(sam, SceneCache(nothing, nothing, nothing), scenes=1) == 1.3
    changed = (upscaling[0].weight != before).flatten(2).any(-1).nonzero().tolist()
    assert changed == sorted([mark, channel] for mark in NEAR_MARKS)
    torch.testing.assert_close(upscaling[0].weight[list(NEAR_MARKS)], 1.3 * before[list(NEAR_MARKS)])
    assert upscaling[0].weight[KEY_ZERO, channel, 0, 0].item() == -4.0
