"""What the target says where its package is missing or too old; the package is not needed for that."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

from mobilesam_export import cli, export, targets
from mobilesam_export.bundle.predictor import open_runtime
from mobilesam_export.bundle.written import read_written
from mobilesam_export.errors import ExportError
from mobilesam_export.targets.choices import left_out, missing_packages, targets_of
from reference.mobile_sam import MobileSam
from tests.fake_target import install
from tests.small_bundle import write_bundle


def test_a_missing_package_is_one_line_with_the_command_that_brings_it(
    sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets.named("executorch"), "packages", ("a_package_that_is_not_there",))
    with pytest.raises(ExportError, match=r"no a_package_that_is_not_there\); run: pip install 'mobilesam-export\[exe"):
        export(sam, "executorch", tmp_path / "dist")
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_too_old_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.4.9")
    with pytest.raises(ExportError, match=r"got executorch 1.4.9, expected 1.5 or later; run: pip install --upgrade"):
        targets.named("executorch").load(verify=True)


def test_options_of_other_targets_and_unknown_precisions_are_refused(sam: MobileSam, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="opset 17 is for onnx, got target executorch"):
        export(sam, "executorch", tmp_path / "dist", opset=17)
    with pytest.raises(ExportError, match="got precision palette6 for executorch, expected float32"):
        export(sam, "executorch", tmp_path / "dist", precision="palette6")


def test_all_is_every_target_that_is_installed_and_the_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for target in targets.ALL:
        monkeypatch.setattr(target, "packages", ())
    assert targets_of("all") == targets.names()
    assert left_out("all") is None
    monkeypatch.setattr(targets.named("executorch"), "packages", ("a_package_that_is_not_there",))
    assert missing_packages(targets.named("executorch")) == ["a_package_that_is_not_there"]
    assert targets_of("all") == tuple(name for name in targets.names() if name != "executorch")
    assert left_out(["onnx", "coreml"]) is None
    assert left_out(["onnx", "all"]) == (
        "all is every target that is installed; left out is executorch (no a_package_that_is_not_there): "
        "run: pip install 'mobilesam-export[executorch]'"
    )
    assert targets_of("executorch,all") == targets.names()  # who names it is told that it is missing
    assert left_out("executorch, all") is None


def test_an_export_of_all_says_once_what_it_leaves_out(
    sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnx", "coreml", "tflite"):
        install(monkeypatch, sam, name)
    monkeypatch.setattr(targets, "ALL", (*targets.ALL[:3], targets.named("executorch")))
    monkeypatch.setattr(targets.named("executorch"), "packages", ("a_package_that_is_not_there",))
    monkeypatch.setattr("reference.load_mobile_sam", lambda *_, **__: sam)
    out = tmp_path / "dist"
    assert cli.main(["export", "--target", "all", "--no-verify", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("left out is executorch (no a_package_that_is_not_there): run: pip install") == 1
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["coreml", "onnx", "tflite"]


def test_without_the_package_a_bundle_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = write_bundle(tmp_path, "executorch").target("executorch")
    monkeypatch.setitem(sys.modules, "executorch.runtime", None)
    with pytest.raises(ExportError, match=r"runtime is not installed \(.*\); run: pip install 'mobilesam-export\[exec"):
        open_runtime(entry, tmp_path)
    with pytest.raises(ExportError, match=r"cannot be read here \(.*\); run: pip install 'mobilesam-export\[exec"):
        read_written(entry, tmp_path)


def test_the_other_targets_of_a_bundle_are_verified_beside_one_that_is_not_run(
    sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnx", "executorch"):
        install(monkeypatch, sam, name)
    monkeypatch.setattr("reference.load_mobile_sam", lambda *_, **__: sam)
    out = tmp_path / "dist"
    export(sam, ["onnx", "executorch"], out, verify=False)
    monkeypatch.setattr(targets.named("executorch"), "not_run", lambda _options: "compile-only: for another machine")
    monkeypatch.setattr(targets.named("executorch"), "open", pytest.fail)
    assert cli.main(["verify", "--quick", str(out)]) == 1
    printed = capsys.readouterr()
    assert "onnx parity passed" in printed.out
    told = "executorch cannot be verified (compile-only: for another machine); the other targets passed"
    assert told in " ".join(printed.err.split())
