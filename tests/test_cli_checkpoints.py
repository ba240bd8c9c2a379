"""The command line takes checkpoints as people have them, and writes them in the official layout."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mobilesam_export import cli
from reference.checkpoint import load_mobile_sam, official_state_dict, weights_sha256
from reference.mobile_sam import MobileSam
from tests.fake_target import install
from tests.randomised import randomised_sam
from tests.reference.golden import OFFICIAL_SHAPES

SIZE = "64"


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(seed=3, image_size=int(SIZE))


@pytest.fixture(scope="module")
def run(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run's file: two sets of weights and what else such files have."""
    state = official_state_dict(sam)
    averaged = {f"module.{name}": tensor * 0.5 for name, tensor in state.items()}
    path = tmp_path_factory.mktemp("run") / "run.ckpt"
    torch.save({"epoch": 3, "state_dict": {f"sam.{n}": t for n, t in state.items()}, "ema": averaged}, path)
    return path


def test_a_run_becomes_an_official_file_and_what_was_left_out_is_said_once(
    run: Path, sam: MobileSam, tmp_path: Path
) -> None:
    out = tmp_path / "mobile_sam.pt"
    done = subprocess.run(
        [sys.executable, "-m", "mobilesam_export", "convert-checkpoint", str(run), str(out)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == f"{out}\n"
    assert done.stderr.count("run.ckpt: the weights stand under 'state_dict.sam'") == 1
    assert "others under 'ema.module' were not taken (--checkpoint-key ema.module" in done.stderr
    assert "left out: epoch" in done.stderr
    written = torch.load(out, weights_only=True)
    assert {name: tuple(tensor.shape) for name, tensor in written.items()} == OFFICIAL_SHAPES
    assert weights_sha256(load_mobile_sam(out, 64)) == weights_sha256(sam)


def test_a_remark_is_told_as_it_is_where_a_library_has_set_up_the_root_logger(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = logging.StreamHandler(sys.stderr)  # as executorch's imports leave one
    theirs.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    monkeypatch.setattr(logging.getLogger(), "handlers", [theirs])
    assert cli.main(["convert-checkpoint", str(run), str(tmp_path / "out.pt"), "-q"]) == 0
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("run.ckpt: the weights stand under 'state_dict.sam'")
    assert logging.getLogger("reference").propagate
    assert logging.getLogger("reference").handlers == []


def test_the_other_candidate_is_written_when_asked_for(run: Path, sam: MobileSam, tmp_path: Path) -> None:
    out = tmp_path / "ema.safetensors"
    arguments = ["convert-checkpoint", str(run), str(out), "--checkpoint-key", "ema", "--float16", "-q"]
    assert cli.main(arguments) == 0
    found = load_mobile_sam(out, 64).state_dict()
    for name, tensor in sam.state_dict().items():
        half = (tensor * 0.5).half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(found[name], half), name


def test_convert_checkpoint_replaces_nothing_unless_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mobile_sam.pt"
    out.write_bytes(b"old")
    assert cli.main(["convert-checkpoint", str(run), str(out), "-q"]) == 1
    assert capsys.readouterr().err == f"error: {out} exists; give another OUT or --overwrite\n"
    assert out.read_bytes() == b"old"
    assert cli.main(["convert-checkpoint", str(run), str(out), "-q", "--overwrite"]) == 0
    assert out.stat().st_size > 10**7


def test_convert_checkpoint_writes_no_format_that_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["convert-checkpoint", "nowhere.pt", str(tmp_path / "sam.onnx"), "-q"]) == 1
    assert "expected a name that ends in .pt, .pth or .safetensors" in capsys.readouterr().err


def test_an_encoder_alone_is_exported_and_verified_with_a_decoder(
    sam: MobileSam, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, out = tmp_path / "enc.pt", tmp_path / "dist"
    torch.save(sam.image_encoder.state_dict(), encoder)
    parts = ["--checkpoint", str(encoder), "--decoder-checkpoint", "demo"]
    joined = load_mobile_sam(encoder, int(SIZE), decoder="demo")
    install(monkeypatch, joined)
    assert cli.main(["export", *parts, "--image-size", SIZE, "--out", str(out), "--json", "-q"]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["weights"]["source"] == "enc.pt with the decoder of demo"
    assert manifest["weights"]["notice"].startswith("its decoder is of the bundled demonstration weights")
    assert manifest["weights"]["sha256"] == weights_sha256(joined)
    assert cli.main(["verify", str(out), *parts, "-q"]) == 0
    assert cli.main(["verify", str(out), "-q"]) == 1
    assert "made from enc.pt with the decoder of demo; say where that is" in capsys.readouterr().err
    assert cli.main(["export", "--checkpoint", str(encoder), "--out", str(tmp_path / "half"), "-q"]) == 1
    assert "enc.pt holds an image encoder alone; give the rest with --decoder-checkpoint" in capsys.readouterr().err
