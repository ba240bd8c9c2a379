"""The flow around a target: nothing is moved into place unless it passed, and what was there survives every failure."""

import errno
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mobilesam_export
from mobilesam_export import ExportError, ParityError, targets
from mobilesam_export.bundle.checksums import tree_sha256
from mobilesam_export.bundle.described_contract import describe_contract
from mobilesam_export.bundle.manifest import FILE_NAME, Manifest
from mobilesam_export.bundle.written import read_written
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.pipeline import NOTICES, notice_of, verify_bundle
from reference.mobile_sam import MobileSam
from tests.fake_target import install, write_small_files
from tests.randomised import randomised_sam
from tests.reference_runtime import ReferenceRuntime, SwappedXY

COFFEE = PHOTOS[1:2]


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=64)


@pytest.fixture(scope="module")
def other_sam() -> MobileSam:
    return randomised_sam(seed=1, image_size=64)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "bundles" / "dist"


def export(sam: MobileSam, out: Path, **options: Any) -> mobilesam_export.Bundle:
    return mobilesam_export.export(sam, out_dir=out, photos=COFFEE, **options)


def leftovers(out: Path) -> list[str]:
    return [path.name for path in out.parent.iterdir() if path != out]


def test_a_passing_export_is_a_bundle_with_manifest_and_overlay(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam)
    bundle = export(sam, out)
    assert sorted(path.name for path in out.iterdir()) == [FILE_NAME, "onnx", "overlay-onnx.png"]
    assert [path.name for path in bundle.artifacts] == ["mobile_sam_encoder.fake", "mobile_sam_decoder.fakepackage"]
    assert all(path.exists() for path in bundle.artifacts)
    assert Manifest.read(out) == bundle.manifest
    entry = bundle.manifest.targets["onnx"]
    assert entry.parity is not None
    assert entry.parity["passed"] is True
    assert entry.notes == {"written": 2}
    assert leftovers(out) == []


def test_a_failing_gate_leaves_nothing(sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, sam, runtime=SwappedXY)
    with pytest.raises(ParityError, match="lowest mask IoU"):
        export(sam, out)
    assert leftovers(out) == ["dist.failed"]
    assert not out.exists()


def test_without_verification_no_parity_is_claimed(sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, sam, runtime=SwappedXY)
    assert export(sam, out, verify=False).manifest.targets["onnx"].parity is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be written"),
        (RuntimeError("op 'foo' is unknown\nlong trace"), "onnx converter failed .RuntimeError: op 'foo' is unknown.;"),
    ],
)
def test_an_error_while_writing_leaves_the_old_bundle(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    install(monkeypatch, sam)
    export(sam, out)
    before = tree_sha256(out)

    def fail_half_way(sam: MobileSam, out_dir: Path, **options: Any) -> list[Path]:
        (out_dir / "mobile_sam_encoder.fake").write_bytes(b"half")
        raise error

    install(monkeypatch, sam, write=fail_half_way)
    with pytest.raises(ExportError, match=told) as raised:
        export(sam, out, overwrite=True)
    assert "\n" not in str(raised.value)
    assert tree_sha256(out) == before
    assert leftovers(out) == []


def test_ctrl_c_leaves_the_old_bundle(sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, sam)
    export(sam, out)
    before = tree_sha256(out)

    def interrupted(sam: MobileSam, out_dir: Path, **options: Any) -> list[Path]:
        write_small_files(sam, out_dir)
        raise KeyboardInterrupt

    install(monkeypatch, sam, write=interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(sam, out, overwrite=True)
    assert tree_sha256(out) == before
    assert leftovers(out) == []


def test_present_targets_need_overwrite(sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, sam)
    export(sam, out)
    with pytest.raises(ExportError, match=r"already holds onnx.*--overwrite"):
        export(sam, out)
    assert export(sam, out, overwrite=True).manifest.targets.keys() == {"onnx"}
    assert leftovers(out) == []


def test_an_absent_target_is_added_beside_the_others(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam)
    install(monkeypatch, sam, "tflite")
    export(sam, out, targets=["tflite"])
    (out / "notes.txt").write_text("mine")
    bundle = export(sam, out, targets=["onnx"])
    assert list(bundle.manifest.targets) == ["onnx", "tflite"]
    for entry in bundle.manifest.targets.values():
        entry.check_files(out)
    assert (out / "overlay-tflite.png").is_file()
    assert (out / "notes.txt").read_text() == "mine"


def test_other_weights_replace_the_whole_bundle_with_overwrite_only(
    sam: MobileSam, other_sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam)
    install(monkeypatch, sam, "tflite")
    export(sam, out, targets=["tflite"])
    install(monkeypatch, other_sam)
    with pytest.raises(ExportError, match="other weights"):
        export(other_sam, out)
    bundle = export(other_sam, out, overwrite=True)
    assert list(bundle.manifest.targets) == ["onnx"]
    assert not (out / "tflite").exists()
    assert not (out / "overlay-tflite.png").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_bundle_is_never_touched(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    install(monkeypatch, sam)
    out.mkdir(parents=True)
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match="is no bundle"):
        export(sam, out, overwrite=overwrite)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_is_filled(sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, sam)
    out.mkdir(parents=True)
    assert export(sam, out).manifest.targets.keys() == {"onnx"}


def test_unknown_and_missing_targets_are_refused_before_any_work(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ExportError, match="got target ncnn, expected onnx, coreml, tflite"):
        export(sam, out, targets=["ncnn"])
    with pytest.raises(ExportError, match="got target list"):
        export(sam, out, targets=[])
    monkeypatch.setattr(targets.named("tflite"), "packages", ("a_package_that_is_not_there",))
    with pytest.raises(ExportError, match=r"tflite target is not available here \(no a_package_that_is_not_there\)"):
        export(sam, out, targets=["tflite"])
    monkeypatch.setattr(targets.named("tflite"), "packages", ())
    monkeypatch.setitem(sys.modules, "mobilesam_export.targets.tflite.write", None)
    with pytest.raises(ExportError, match="tflite target is not available here"):
        export(sam, out, targets=["tflite"])
    assert not out.parent.exists()


def test_an_option_that_no_target_takes_is_refused(sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, sam)
    with pytest.raises(ExportError, match="image_input tensor is for coreml, got target onnx"):
        export(sam, out, image_input="tensor")
    with pytest.raises(ExportError, match="opset 17 is for onnx, got target tflite"):
        export(sam, out, targets=["tflite"], opset=17)


def test_an_option_goes_to_the_targets_that_take_it_only(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: dict[str, set[str]] = {}

    def remember(sam: MobileSam, out_dir: Path, **options: Any) -> list[Path]:
        got[out_dir.name] = options.keys() - {"metadata", "progress", "precision"}
        return write_small_files(sam, out_dir)

    for target in ("onnx", "coreml", "tflite"):
        install(monkeypatch, sam, target, write=remember)
    options: dict[str, Any] = {"opset": 17, "image_input": "uint8", "max_points": 4}
    bundle = export(sam, out, targets=["onnx", "coreml", "tflite"], precision="float32", **options)
    assert got == {"onnx": {"opset", "max_points"}, "coreml": {"max_points"}, "tflite": {"image_input", "max_points"}}
    assert bundle.manifest.targets["tflite"].options == {"max_points": 4, "image_input": "uint8"}


def test_a_decoder_of_few_points_is_verified_with_the_prompts_that_fit(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TwoPoints(ReferenceRuntime):
        max_points = 2

    install(monkeypatch, sam, runtime=TwoPoints)
    parity = export(sam, out, max_points=2).manifest.targets["onnx"].parity
    assert parity is not None
    assert set(parity["prompts"]) == {"point", "box", "mask only"}
    with pytest.raises(ExportError, match="got max_points 0, expected 2 to 256"):
        export(sam, out, max_points=0)


def test_verify_measures_again_and_tells_other_weights(
    sam: MobileSam, other_sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam)
    export(sam, out)
    assert [report.passed for report in verify_bundle(out, sam)] == [True]
    with pytest.raises(ExportError, match="made from other weights"):
        verify_bundle(out, other_sam)
    install(monkeypatch, sam, runtime=SwappedXY)
    assert [report.passed for report in verify_bundle(out, sam)] == [False]


def test_a_damaged_bundle_is_not_loaded(sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, sam)
    bundle = export(sam, out)
    bundle.artifacts[0].write_bytes(b"encodeX")
    with pytest.raises(ExportError, match=r"mobile_sam_encoder.fake has been changed"):
        mobilesam_export.load_bundle(out)
    bundle.artifacts[0].unlink()
    with pytest.raises(ExportError, match=r"mobile_sam_encoder.fake is missing"):
        mobilesam_export.load_bundle(out, target="onnx")


def test_the_manifest_has_the_ports_and_the_files_their_precision(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam)
    entry = export(sam, out, verify=False).manifest.targets["onnx"]
    written = read_written(entry, out)
    assert entry.contract == describe_contract(64, written)
    assert written.metadata["precision"] == "float32"


@pytest.mark.parametrize(
    ("was", "forged", "told"),
    [
        ('"precision": "float32"', '"precision": "int8"', "says that onnx is int8, its files say float32; do not use"),
        ('"name": "image",', '"name": "picture",', "encoder file, whose inputs have image"),
        ('"max_points": null', '"max_points": 8', "names ports that onnx's files do not have"),
    ],
)
def test_a_manifest_that_says_otherwise_than_the_files_is_refused(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch, was: str, forged: str, told: str
) -> None:
    install(monkeypatch, sam)
    export(sam, out)
    text = (out / FILE_NAME).read_text()
    assert was in text
    (out / FILE_NAME).write_text(text.replace(was, forged))
    with pytest.raises(ExportError, match=told):
        verify_bundle(out, sam)


def test_a_second_export_while_one_runs_is_refused_and_loses_nothing(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_export_again(sam: MobileSam, out_dir: Path, **options: Any) -> list[Path]:
        with pytest.raises(ExportError, match=r"another export \(process \d+\) is writing"):
            export(sam, out, targets=["tflite"], verify=False)
        return write_small_files(sam, out_dir, **options)

    install(monkeypatch, sam, "tflite")
    install(monkeypatch, sam, write=write_and_export_again)
    assert list(export(sam, out, verify=False).manifest.targets) == ["onnx"]
    install(monkeypatch, sam)
    assert list(export(sam, out, targets=["tflite"], verify=False).manifest.targets) == ["onnx", "tflite"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_somebody_puts_there_meanwhile_is_never_deleted(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    def write_while_others_do(sam: MobileSam, out_dir: Path, **options: Any) -> list[Path]:
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
        return write_small_files(sam, out_dir, **options)

    install(monkeypatch, sam, write=write_while_others_do)
    with pytest.raises(ExportError, match="is no bundle of this program"):
        export(sam, out, verify=False, overwrite=overwrite)
    assert (out / "thesis.tex").read_text() == "years of work"
    assert leftovers(out) == []


def test_a_bundle_that_changes_meanwhile_is_not_replaced(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam)
    export(sam, out, verify=False)

    def write_while_others_do(sam: MobileSam, out_dir: Path, **options: Any) -> list[Path]:
        present = Manifest.read(out)
        replace(present, weights=replace(present.weights, source="somebody.pt")).write(out)
        return write_small_files(sam, out_dir, **options)

    install(monkeypatch, sam, write=write_while_others_do)
    with pytest.raises(ExportError, match="was changed while this export ran"):
        export(sam, out, verify=False, overwrite=True)
    assert leftovers(out) == []


def test_out_may_be_a_link_which_stays(sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, sam)
    out.mkdir(parents=True)
    link = out.parent / "link"
    link.symlink_to("dist")
    bundle = export(sam, link, verify=False)
    assert link.is_symlink()
    assert bundle.directory == link
    assert Manifest.read(out) == bundle.manifest
    link.unlink()
    link.symlink_to("nowhere")
    monkeypatch.setattr("mobilesam_export.pipeline.weights_sha256", lambda sam: pytest.fail("work was begun"))
    with pytest.raises(ExportError, match=r"is a link to .*nowhere, which is not there"):
        export(sam, link, verify=False)


def test_weights_that_are_not_mobilesams_are_told_of_each_half() -> None:
    assert notice_of("demo") == NOTICES["demo"]
    assert notice_of("mobile_sam.pt") is None and notice_of("official with the decoder of sam_vit_h.pth") is None
    assert notice_of("demo with the decoder of official") == f"its image encoder is of {NOTICES['demo']}"
    both = notice_of("demo with the decoder of demo")
    assert both and "its image encoder is of" in both and "its decoder is of" in both


def test_a_checkpoint_with_an_odd_name_gives_a_manifest_that_can_be_read(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam)
    monkeypatch.setattr(sam, "weights_source", "a\nb\x1b.pt")
    export(sam, out, verify=False)
    assert Manifest.read(out).weights.source == "a?b?.pt"
