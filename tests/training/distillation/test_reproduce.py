"""The paper's tables, as small as possible."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reference.checkpoint import stand_in_mobile_sam
from reference.training.distillation.baselines import (
    METHODS,
    EmbeddedScenes,
    Trial,
    draw_batch,
    embed_scenes,
    in_the_loop,
    needs_masks,
    start_student,
    trial_loss,
)
from reference.training.distillation.reproduce import PAPERS_METHODS, ReproduceConfig, reproduce
from reference.training.scenes.scene_cache import write_cache

SMALL = "mobilenetv3_small_050.lamb_in1k"


@pytest.mark.parametrize("method", METHODS)
def test_a_method_trains_what_it_should_and_nothing_else(method: str, tmp_path: Path) -> None:
    cache, teacher = write_cache(tmp_path, 4, image_size=64), stand_in_mobile_sam(1024)
    trial = Trial(method, 1e-3, 0, 4, batch_size=2, student=SMALL)
    student = start_student(trial, teacher)
    data = EmbeddedScenes(cache, embed_scenes(teacher, cache, tmp_path / "embeddings.npy"))
    batch = draw_batch(data, teacher, [0], 2, needs_masks(trial))
    assert (batch.embeddings - teacher.image_encoder(batch.images)).abs().max() < 0.1  # bfloat16 and float16 rounding
    trial_loss(trial, student, teacher, batch, step=3).backward()
    moved = {
        name.split(".")[0] for name, p in student.named_parameters() if p.grad is not None and p.grad.abs().max() > 0
    }
    trained = (
        {"image_encoder"}
        if method not in ("coupled", "in-the-loop")
        else {"image_encoder", "mask_decoder", "prompt_encoder"}
    )
    assert moved == trained


def test_the_last_quarter_of_the_steps_is_in_the_loop_and_starts_from_embeddings_alone(tmp_path: Path) -> None:
    trial = Trial("in-the-loop", 1e-3, 0, 8, batch_size=2, student=SMALL)
    assert [in_the_loop(trial, step) for step in range(8)] == [False] * 6 + [True] * 2
    assert not any(in_the_loop(replace(trial, method="coupled"), step) for step in range(8))
    cache, teacher = write_cache(tmp_path, 4, image_size=64), stand_in_mobile_sam(1024)
    data = EmbeddedScenes(cache, embed_scenes(teacher, cache, tmp_path / "embeddings.npy"))
    batch = draw_batch(data, teacher, [0], 2, with_masks=False)
    student = start_student(trial, teacher)
    first = trial_loss(trial, student, teacher, batch, step=0)
    assert torch.equal(first, trial_loss(replace(trial, method="decoupled"), student, teacher, batch, step=0))
    last = trial_loss(trial, student, teacher, batch, step=7)
    assert torch.equal(last, trial_loss(trial, student, teacher, batch, step=7)), "not a function of seed and step"
    assert not torch.equal(last, trial_loss(trial, student, teacher, batch, step=6))


@pytest.mark.slow
def test_a_smoke_run_writes_both_tables_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    config = ReproduceConfig(tmp_path, student=SMALL, smoke=True)
    text = reproduce(config)
    assert all(f"| 2 | {method} | 2 |" in text for method in PAPERS_METHODS) and "| ours | in-the-loop | 2 |" in text
    assert METHODS[:3] == PAPERS_METHODS
    assert text.count("| 4 | batch") == 3
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert reproduce(replace(config)) == text
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()} == stamps
    assert len(json.loads((tmp_path / "tables.json").read_text())["rows"]) == 7
    assert (tmp_path / "tables.png").stat().st_size > 1000
    with pytest.raises(ValueError, match=r"holds runs with seconds 260\.0, got 5"):
        reproduce(replace(config, seconds=5))
