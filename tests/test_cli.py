"""The command line: paths on stdout, one line for an error, and the right exit code."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilesam_export import cli
from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.photos import PHOTO_DIR
from mobilesam_export.targets import names
from reference.checkpoint import load_mobile_sam, save_checkpoint
from reference.mobile_sam import MobileSam
from tests.fake_target import install, write_small_files
from tests.reference_runtime import SwappedXY

ROOT = Path(__file__).parent.parent
SIZE = "64"


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return load_mobile_sam("demo", int(SIZE))


@pytest.fixture(scope="module")
def bundle(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "dist"
    with pytest.MonkeyPatch.context() as monkeypatch:
        install(monkeypatch, sam)
        assert cli.main(["export", "--checkpoint", "demo", "--image-size", SIZE, "--out", str(out), "-q"]) == 0
    return out


@pytest.fixture
def fake(sam: MobileSam, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, sam)


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on stderr, which has to be the error."""
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.mark.usefixtures("fake")
def test_export_prints_the_artifacts_paths_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "dist"
    assert cli.main(["export", "--checkpoint", "demo", "--image-size", SIZE, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [Path(line).name for line in lines] == ["mobile_sam_encoder.fake", "mobile_sam_decoder.fakepackage"]
    assert all(Path(line).exists() for line in lines)
    assert "NOT THE OFFICIAL WEIGHTS" in captured.err
    assert "onnx float32: verify" in captured.err
    assert "You asked for them" in captured.err


@pytest.mark.usefixtures("fake")
def test_json_is_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "dist"
    arguments = ["export", "--checkpoint", "demo", "--image-size", SIZE, "--out", str(out), "--json", "-q"]
    assert cli.main(arguments) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((out / "manifest.json").read_text())
    manifest = json.loads(captured.out)
    assert manifest["weights"]["notice"]
    assert manifest["targets"]["onnx"]["parity"]["prompts"]["box and points"]["mask_iou_min"] >= 0.999


@pytest.mark.usefixtures("fake")
def test_without_a_checkpoint_the_bundled_weights_are_taken_with_a_notice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobilesam_export.weights_choice.default_checkpoint", lambda: ("demo", "no network here"))
    out = tmp_path / "dist"
    assert cli.main(["export", "--image-size", SIZE, "--out", str(out)]) == 0
    errors = capsys.readouterr().err
    assert "NOT THE OFFICIAL WEIGHTS" in errors
    assert "no network here" in errors
    assert Manifest.read(out).weights.notice


def test_a_failed_gate_lists_the_failures_and_moves_nothing(
    sam: MobileSam, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam, runtime=SwappedXY)
    out = tmp_path / "dist"
    assert cli.main(["export", "--checkpoint", "demo", "--image-size", SIZE, "--out", str(out)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error: nothing was written" in captured.err
    assert "lowest mask IoU" in captured.err
    assert "coffee, box" in captured.err
    assert captured.err.splitlines()[-1] == "next: --image-size 320 or --no-verify"  # the nearest that was measured
    assert [path.name for path in tmp_path.iterdir()] == ["dist.failed"]


@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(
    sam: MobileSam,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    interruption: signal.Signals,
    swallowed: bool,
) -> None:
    def interrupted(sam: MobileSam, out_dir: Path, **options: Any) -> list[Path]:
        files = write_small_files(sam, out_dir)
        try:
            os.kill(os.getpid(), interruption)
        except KeyboardInterrupt:
            if not swallowed:
                raise
        return files

    install(monkeypatch, sam, write=interrupted)
    out = tmp_path / "dist"
    assert cli.main(["export", "--checkpoint", "demo", "--image-size", SIZE, "--out", str(out)]) == 130
    assert error_of(capsys) == "error: interrupted; nothing was written"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    "interrupted",
    ["bundle.staging.exchange", "pipeline.move_into_place", "bundle.staging._tidy", "bundle.tables.print_manifest"],
)
@pytest.mark.parametrize("before", [True, False])
def test_an_interruption_says_whether_the_bundle_is_in_place(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    interrupted: str,
    before: bool,
) -> None:
    out = Path(shutil.copytree(bundle, tmp_path / "dist"))
    earlier = out.stat().st_ino
    module, _, name = interrupted.rpartition(".")
    really = getattr(importlib.import_module(f"mobilesam_export.{module}"), name)

    # To this thread: os.kill may be delivered to one of PyTorch's, and then the next lines run before it is seen.
    def with_a_signal(*arguments: Any) -> Any:
        if before:
            signal.raise_signal(signal.SIGINT)
        result = really(*arguments)
        if not before:
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(f"mobilesam_export.{interrupted}", with_a_signal)
    arguments = [
        "export",
        "--checkpoint",
        "demo",
        "--image-size",
        SIZE,
        "--out",
        str(out),
        "--overwrite",
        "--no-verify",
    ]
    assert cli.main(arguments) == 130
    replaced = out.stat().st_ino != earlier
    outcome = f"the bundle is in place at {out}" if replaced else "nothing was written"
    assert error_of(capsys) == f"error: interrupted; {outcome}"
    assert replaced or interrupted == "bundle.staging._tidy"
    for entry in Manifest.read(out).targets.values():
        entry.check_files(out)


@pytest.mark.usefixtures("fake")
def test_bad_checkpoints_are_told_in_one_line(
    sam: MobileSam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def export(path: Path) -> str:
        arguments = ["export", "--checkpoint", str(path), "--image-size", SIZE, "--out", str(tmp_path / "dist"), "-q"]
        assert cli.main(arguments) == 1
        return error_of(capsys)

    assert "there is no checkpoint at" in export(tmp_path / "missing.pt")
    good = tmp_path / "good.pt"
    save_checkpoint(sam, good)
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    assert "truncated" in export(truncated)
    text = tmp_path / "text.pt"
    text.write_text("not a checkpoint")
    assert "text.pt" in export(text)
    assert not (tmp_path / "dist").exists()


@pytest.mark.usefixtures("fake")
def test_a_bad_image_size_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "--checkpoint", "demo", "--image-size", "100", "--out", str(tmp_path / "dist"), "-q"]
    assert cli.main(arguments) == 1
    assert "multiple of 32" in error_of(capsys)


@pytest.mark.usefixtures("fake")
def test_existing_output_is_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["export", "--checkpoint", "demo", "--image-size", SIZE, "--out", str(bundle), "-q"]
    assert cli.main(arguments) == 1
    assert "--overwrite" in error_of(capsys)


def test_a_missing_backend_is_told_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mobilesam_export.targets.tflite.write", None)
    assert cli.main(["export", "--target", "tflite", "--out", str(tmp_path / "dist")]) == 1
    assert "the tflite target is not available here" in error_of(capsys)


@pytest.mark.parametrize(
    "arguments",
    [[], ["frobnicate"], ["export", "--opset", "new"], ["segment", "a.png", "--point", "1"], ["verify"]],
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2


@pytest.mark.parametrize("command", [None, *cli.COMMANDS])
def test_every_help_ends_with_an_example(command: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main([command, "--help"] if command else ["--help"])
    assert raised.value.code == 0
    assert "example: " in capsys.readouterr().out.strip().splitlines()[-1]


@pytest.mark.parametrize("start", [["export.py"], ["-m", "mobilesam_export", "export"]])
def test_help_runs_from_a_shell_and_quickly_because_pytorch_stays_out(start: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *start, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(target in run.stdout for target in names())
    assert "| torch\n" not in run.stderr


@pytest.mark.usefixtures("fake")
def test_inspect_shows_the_tables_and_finds_damage(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    assert cli.main(["inspect", str(copy)]) == 0
    printed = capsys.readouterr().out
    assert "onnx/mobile_sam_encoder.fake" in printed
    assert "mask refinement" in printed
    assert "all files are as the manifest says" in printed
    assert cli.main(["inspect", str(copy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["image_size"] == int(SIZE)
    (copy / "onnx" / "mobile_sam_decoder.fakepackage" / "Data" / "weights.bin").write_bytes(b"weightX")
    assert cli.main(["inspect", str(copy)]) == 1
    assert "mobile_sam_decoder.fakepackage has been changed" in error_of(capsys)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize(("key", "empty"), [("targets", "{}"), ("files", "[]")])
def test_a_bundle_of_nothing_is_not_said_to_be_well(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, key: str, empty: str
) -> None:
    content = json.loads((bundle / "manifest.json").read_text())
    place = content if key == "targets" else content["targets"]["onnx"]
    place[key] = json.loads(empty)
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    assert cli.main([command, str(tmp_path), "-q"]) == 1
    assert f"{key} is {empty}, expected at least one" in error_of(capsys)


def test_verify_says_whether_the_bundle_still_agrees(
    sam: MobileSam, bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam)
    assert cli.main(["verify", str(bundle), "-q"]) == 0
    assert "onnx parity passed" in capsys.readouterr().out
    install(monkeypatch, sam, runtime=SwappedXY)
    assert cli.main(["verify", str(bundle), "-q", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["onnx"]["passed"] is False
    assert "onnx does not agree" in captured.err


@pytest.mark.usefixtures("fake")
def test_verify_asks_for_the_checkpoint_that_it_cannot_know(
    sam: MobileSam, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = tmp_path / "mine.pt", tmp_path / "dist"
    save_checkpoint(sam, checkpoint)
    common = ["--image-size", SIZE, "--out", str(out), "-q"]
    assert cli.main(["export", "--checkpoint", str(checkpoint), *common]) == 0
    assert cli.main(["verify", str(out), "-q"]) == 1
    assert "made from mine.pt; say where that is with --checkpoint" in error_of(capsys)
    assert cli.main(["verify", str(out), "-q", "--checkpoint", str(checkpoint)]) == 0


def segment(bundle: Path, out: Path, *arguments: str, photo: Path = PHOTO_DIR / "coffee.png") -> int:
    return cli.main(["segment", str(photo), "--bundle", str(bundle), "-o", str(out), *arguments])


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    "prompt",
    [
        ["--point", "287,151"],
        ["--point", "126,262", "--point", "439,212", "--background", "287,151"],
        ["--box", "171,15,424,313"],
        ["--box", "171,15,424,313", "--point", "287,151"],
    ],
)
def test_segment_writes_a_mask_and_an_overlay(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], prompt: list[str]
) -> None:
    out = tmp_path / "mask.png"
    assert segment(bundle, out, *prompt) == 0
    assert capsys.readouterr().out.splitlines() == [str(out), str(tmp_path / "mask-overlay.png")]
    mask = np.asarray(Image.open(out))
    assert mask.shape == (400, 600)
    assert set(np.unique(mask)) <= {0, 255}
    assert Image.open(tmp_path / "mask-overlay.png").size == (600, 400)


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ([], "got no prompt"),
        (["--point", "600.5,10"], "(600.5, 10) is outside the photo of 600 x 400 pixels"),
        (["--background", "10,-1"], "(10, -1) is outside"),
        (["--point", "nan,10"], "is outside"),
        (["--box", "0,0,700,10"], "(700, 10) is outside"),
        (["--box", "50,50,10,60"], "expected x0 < x1"),
    ],
)
def test_a_prompt_that_makes_no_sense_is_told(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], prompt: list[str], told: str
) -> None:
    assert segment(bundle, tmp_path / "mask.png", *prompt) == 1
    assert told in error_of(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("fake")
def test_a_photo_that_is_none_is_told(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, truncated = tmp_path / "text.jpg", tmp_path / "truncated.png"
    text.write_text("no photo")
    truncated.write_bytes((PHOTO_DIR / "coffee.png").read_bytes()[:5000])
    for photo in (text, truncated, tmp_path / "missing.png"):
        assert segment(bundle, tmp_path / "mask.png", "--point", "1,1", photo=photo) == 1
        assert photo.name in error_of(capsys)


@pytest.mark.usefixtures("fake")
def test_odd_photos_work(bundle: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    photos = {
        "grey.png": Image.fromarray(generator.integers(0, 256, (30, 50), np.uint8)),
        "rgba.png": Image.fromarray(generator.integers(0, 256, (30, 50, 4), np.uint8)),
        "deep.png": Image.fromarray(generator.integers(0, 65536, (30, 50), np.uint16)),
        "dot.png": Image.new("RGB", (1, 1), "red"),
        "strip.png": Image.new("RGB", (3000, 2), "blue"),
        "huge.jpg": Image.new("RGB", (4000, 3000), "green"),
    }
    for name, photo in photos.items():
        photo.save(tmp_path / name)
        out = tmp_path / f"mask-{Path(name).stem}.png"
        assert segment(bundle, out, "--point", "0.5,0.5", photo=tmp_path / name) == 0
        assert Image.open(out).size == photo.size


@pytest.mark.usefixtures("fake")
def test_a_rotated_photo_is_segmented_upright(bundle: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees clockwise
    Image.new("RGB", (60, 40)).save(tmp_path / "phone.jpg", exif=exif)
    assert segment(bundle, tmp_path / "mask.png", "--point", "30,50", photo=tmp_path / "phone.jpg") == 0
    assert Image.open(tmp_path / "mask.png").size == (40, 60)


@pytest.mark.usefixtures("fake")
def test_segment_replaces_a_mask_only_when_told(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mask.png"
    assert segment(bundle, out, "--point", "287,151") == 0
    assert segment(bundle, out, "--point", "287,151") == 1
    assert "--overwrite" in error_of(capsys)
    assert segment(bundle, out, "--point", "287,151", "--overwrite") == 0
    assert segment(bundle, tmp_path / "other.jpg", "--point", "287,151") == 1
    assert "ends in .png" in error_of(capsys)


def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["inspect", str(tmp_path)], ["verify", str(tmp_path)]):
        assert cli.main(arguments) == 1
        assert "there is no bundle at" in error_of(capsys)
    assert segment(tmp_path, tmp_path / "mask.png", "--point", "1,1") == 1
    assert "there is no bundle at" in error_of(capsys)
