"""Distillation: it learns, resumes bit for bit, runs on two processes, and refuses what does not belong together."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from reference.checkpoint import load_mobile_sam
from reference.checkpoint_file import read_state
from reference.training.__main__ import main
from reference.training.distillation.distill import Batches, DistillConfig, distill, embedding_loss, epoch_order
from reference.training.distillation.embed import EmbedConfig, embed
from reference.training.distillation.embedding_cache import EmbeddingCache

SMALL = "mobilenetv3_small_050.lamb_in1k"  # half a million parameters, a map at stride 16


@pytest.fixture(scope="module")
def config(sa1b_folder: Path, teacher_path: Path, tmp_path_factory: pytest.TempPathFactory) -> DistillConfig:
    out = tmp_path_factory.mktemp("embeddings")
    embed(EmbedConfig(str(teacher_path), sa1b_folder, out, image_size=64, shard_size=4))
    return DistillConfig(
        out, str(teacher_path), out / "unused", student=SMALL, epochs=3, batch_size=4, precision="no", save_every=1
    )


def test_a_killed_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    config: DistillConfig, tmp_path: Path
) -> None:
    whole = distill(replace(config, out=tmp_path / "whole"))
    for stop in (1, 3, None):
        parts = distill(replace(config, out=tmp_path / "parts", stop_after=stop))
    first, second = read_state(whole)[0], read_state(parts)[0]  # a safetensors header has no fixed order
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "whole/losses.csv").read_text() == (tmp_path / "parts/losses.csv").read_text()
    assert (tmp_path / "whole/losses.png").stat().st_size > 1000
    losses = [float(row["loss"]) for row in csv.DictReader((tmp_path / "whole/losses.csv").open())]
    assert len(losses) == 6 and min(losses[3:]) < losses[0], "the student does not learn"


def test_accumulating_visits_the_same_pictures(config: DistillConfig) -> None:
    cache = EmbeddingCache(config.embeddings)
    plain = [sorted(b) for b in Batches(cache, config, 0, 4, 0, 1)]
    split = list(Batches(cache, replace(config, accumulate=2), 0, 4, 0, 1))
    assert [sorted(a + b) for a, b in zip(split[::2], split[1::2], strict=True)] == plain
    ranks = [list(Batches(cache, config, 0, 4, rank, 2)) for rank in (0, 1)]
    assert [sorted(a + b) for a, b in zip(*ranks, strict=True)] == plain
    assert list(Batches(cache, config, 2, 4, 0, 1)) == list(Batches(cache, config, 0, 4, 0, 1))[2:]


def test_an_epoch_visits_every_picture_once_in_its_own_order(config: DistillConfig) -> None:
    cache = EmbeddingCache(config.embeddings)
    first, second = epoch_order(cache, 0, 0), epoch_order(cache, 0, 1)
    assert sorted(first) == sorted(second) == list(range(11))
    assert list(first) != list(second)


def test_ignoring_padding_counts_only_cells_that_show_the_picture() -> None:
    found, wanted = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    wanted[..., 1] = 5
    shown = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    assert float(embedding_loss(found, wanted, shown)) == 1.0
    assert float(embedding_loss(found, wanted, None)) == 13.0


def test_the_student_keeps_the_teachers_decoder_and_loads_as_a_checkpoint(
    config: DistillConfig, tmp_path: Path, teacher_path: Path
) -> None:
    path = distill(replace(config, out=tmp_path, epochs=1))
    student, (teacher, _) = load_mobile_sam(path, 64), read_state(teacher_path)
    assert student.image_encoder.backbone == SMALL
    for name, value in student.state_dict().items():
        if not name.startswith("image_encoder."):
            torch.testing.assert_close(value, teacher[name], rtol=0, atol=0)


def test_options_that_do_not_fit_are_named(config: DistillConfig, tmp_path: Path, teacher_path: Path) -> None:
    distill(replace(config, out=tmp_path, epochs=1))
    with pytest.raises(
        ValueError, match=r"was trained with seed = 0, got 1; continue with the same options or give another --out"
    ):
        distill(replace(config, out=tmp_path, epochs=1, seed=1))
    with pytest.raises(ValueError, match="was trained with student"):
        distill(replace(config, out=tmp_path, epochs=1, student="tiny_vit_5m_224"))
    with pytest.raises(ValueError, match="fewer than one batch of 64; lower --batch-size"):
        distill(replace(config, out=tmp_path / "b", batch_size=64))
    with pytest.raises(ValueError, match="does not divide among 1 processes times 3"):
        distill(replace(config, out=tmp_path / "c", accumulate=3))


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_good_checkpoint(
    config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, out=tmp_path)
    distill(replace(config, stop_after=2))
    good = (tmp_path / "last.pt").read_bytes()
    monkeypatch.setattr(
        "reference.training.distillation.distill.embedding_loss",
        lambda found, wanted, shown: found.sum() * float("nan"),
    )
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 3; .*last\.pt holds the last good weights"):
        distill(config)
    assert (tmp_path / "last.pt").read_bytes() == good


def test_a_gradient_that_is_not_a_number_is_never_saved(
    config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The square root of zero is finite, its slope is not: the loss says nothing, the weights are lost."""
    monkeypatch.setattr(
        "reference.training.distillation.distill.embedding_loss", lambda found, wanted, shown: (found * 0).sum().sqrt()
    )
    with pytest.raises(FloatingPointError, match=r"norm of the gradient is nan at step 1"):
        distill(replace(config, out=tmp_path))
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_flipped_shard_stops_the_training_in_one_line_and_embed_mends_it(
    workers: int, config: DistillConfig, sa1b_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flipped exponent took a loss of 1.5 to 5779, and the training went on."""
    shutil.copytree(config.embeddings, tmp_path / "e")
    victim = min((tmp_path / "e").glob("*.safetensors"))  # 4 of 11 pictures: 2 batches of 4 meet it
    data = bytearray(victim.read_bytes())
    data[-5000] ^= 0x40
    victim.write_bytes(data)
    options = {"teacher": config.teacher, "embeddings": tmp_path / "e", "out": tmp_path / "out", "student": SMALL}
    options |= {"epochs": 1, "batch-size": 4, "precision": "no", "workers": workers}
    command = ["distill", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{victim.name} does not have its sha256; delete {victim.stem}.* and" in error
    for path in victim.parent.glob(f"{victim.stem}.*"):
        path.unlink()
    embed(EmbedConfig(config.teacher, sa1b_folder, tmp_path / "e", image_size=64, shard_size=4))
    assert main(command) == 0
    assert "11 pictures in 4 shards of " in capsys.readouterr().out


def test_an_error_of_a_loader_process_is_one_line_too(
    config: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: EmbeddingCache, index: int) -> None:
        raise ValueError("the disk is gone")

    monkeypatch.setattr(EmbeddingCache, "__getitem__", fail)
    options = {"teacher": config.teacher, "embeddings": config.embeddings, "out": tmp_path, "student": SMALL}
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    assert main(["distill", *arguments, "--batch-size", "4", "--precision", "no", "--workers", "1"]) == 1
    assert capsys.readouterr().err == "error: ValueError: the disk is gone\n"


def test_a_full_disk_keeps_the_last_good_checkpoint_and_the_run_goes_on_later(
    config: DistillConfig, tmp_path: Path, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    whole = distill(replace(config, out=tmp_path / "whole", epochs=1))
    config = replace(config, out=tmp_path / "parts", epochs=1)
    distill(replace(config, stop_after=1))
    good = (config.out / "last.pt").read_bytes()
    with (
        full_disk(100_000),
        pytest.raises(OSError, match=r"could not write .*last\.pt.*the checkpoint before it is whole"),
    ):
        distill(config)
    assert (config.out / "last.pt").read_bytes() == good
    assert not list(config.out.glob("*.part"))
    first, second = read_state(whole)[0], read_state(distill(config))[0]
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_tensorboard_shows_the_losses_of_the_csv_also_after_a_restart(config: DistillConfig, tmp_path: Path) -> None:
    config = replace(config, out=tmp_path, epochs=1, tensorboard=True)
    distill(replace(config, stop_after=1))
    distill(config)
    accumulator = EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    seen = {event.step: event.value for event in accumulator.Scalars("loss")}
    assert seen == pytest.approx({int(row["step"]): float(row["loss"]) for row in rows}, rel=1e-6)  # events are float32


def test_two_processes_train_one_student(config: DistillConfig, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29731",
        "-m",
        "reference.training",
    ]
    options = {
        "teacher": config.teacher,
        "embeddings": config.embeddings,
        "out": tmp_path,
        "student": SMALL,
        "epochs": 1,
        "batch-size": 4,
        "precision": "no",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "distill", *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(csv.reader((tmp_path / "losses.csv").open()))) == 1 + 2
    assert load_mobile_sam(tmp_path / "student.safetensors", 64).image_encoder.backbone == SMALL
