"""The command that measures which sizes hold their gate: it goes on where it was, and writes what ``export`` reads."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import sizes
from mobilesam_export.measured_sizes import TABLE, MeasuredSizes
from mobilesam_export.options import IMAGE_SIZE
from mobilesam_export.targets.choices import gates_for, option_of
from reference import load_mobile_sam
from reference.checkpoint import weights_sha256
from reference.mobile_sam import MobileSam
from tests.fake_target import install
from tests.randomised import randomised_sam
from tests.reference_runtime import SwappedXY


@pytest.fixture
def sam(monkeypatch: pytest.MonkeyPatch) -> MobileSam:
    sam = randomised_sam(image_size=64)
    monkeypatch.setattr(sizes, "load_mobile_sam", lambda *_: sam)
    monkeypatch.setattr(sizes, "PHOTOS", sizes.PHOTOS[1:2])
    return sam


ONE = ["--target", "onnx", "--image-size", "64", "--precision"]


def test_each_cell_is_measured_once_and_kept(
    sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "table.json"
    install(monkeypatch, sam)
    assert sizes.main([*ONE, "float32"], path) == 0
    install(monkeypatch, sam, runtime=SwappedXY)
    assert sizes.main([*ONE, "float16", "--check"], path) == 1
    assert capsys.readouterr().out.endswith("not measured: onnx float16 at 64\n")
    assert sizes.main([*ONE, "float16"], path) == 0
    assert sizes.main([*ONE, "float32"], path) == 0  # in the table already, else it would miss now
    table = MeasuredSizes.read(path)
    assert table.weights_sha256 == weights_sha256(sam)
    by_name = {cell.precision: cell for cell in table.cells}
    assert (by_name["float32"].failures, by_name["float32"].worst_failure, by_name["float32"].min_iou) == (
        0,
        None,
        None,
    )
    missed = by_name["float16"]
    assert missed.failures > 5
    assert missed.worst_failure is not None
    assert missed.worst_failure.startswith("coffee, ")
    assert set(missed.seconds) == {"write", "verify", "report"}
    assert missed.misses(None)
    assert "| onnx | float16 | 0.99 | **missed** 0." in capsys.readouterr().out
    assert sizes.main([*ONE, "float32", "--check"], path) == 0


def test_a_cell_of_another_gate_and_a_table_of_other_weights_are_measured_again(
    sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.json"
    install(monkeypatch, sam)
    assert sizes.main([*ONE, "float32"], path) == 0
    table = MeasuredSizes.read(path)
    (job,) = sizes._jobs(["onnx"], "float32")
    assert sizes.missing(table, [job], [64]) == []
    looser = replace(table, cells=(replace(table.cells[0], mask_iou_gate=0.5),))
    assert sizes.missing(looser, [job], [64]) == [(64, job)]
    monkeypatch.setattr(sizes, "load_mobile_sam", lambda *_: randomised_sam(seed=1, image_size=64))
    assert sizes.main([*ONE, "float32", "--check"], path) == 1


def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--target", "ncnn"], ["--image-size", "100"], ["--image-size", "big"], ["--precision", "int4"]):
        assert sizes.main(arguments, tmp_path / "table.json") == 1
        assert capsys.readouterr().err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_the_committed_table_names_what_there_is() -> None:
    for cell in MeasuredSizes.read().cells:
        precision = option_of(cell.target, "precision")
        assert precision is not None
        assert precision.takes(cell.precision)
        assert IMAGE_SIZE.takes(cell.image_size)
        assert (cell.failures > 0) == (cell.worst_failure is not None)


PLAIN = ("onnx", "coreml", "tflite")  # what a plain install brings; targets in extras have no measured sizes


@pytest.mark.slow
def test_the_committed_table_is_complete_and_of_the_bundled_weights() -> None:
    """Red after new weights, gates or precisions, until ``python -m benchmarks.sizes`` has run."""
    table = MeasuredSizes.read(TABLE).of(weights_sha256(load_mobile_sam("demo", 64)))
    for target in PLAIN:
        precision = option_of(target, "precision")
        assert precision is not None
        for name in map(str, precision.choices):
            gate = gates_for(target, name).mask_iou.limit
            for size in sizes.SIZES:
                cell = table.cell(target, name, size)
                assert cell is not None, f"{target} {name} at {size} is not measured"
                assert cell.mask_iou_gate == gate
