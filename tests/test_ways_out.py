"""A missed gate says what to do next, and what is known to miss is refused at once."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mobilesam_export
from mobilesam_export import ExportError, ParityError, cli, pipeline
from mobilesam_export.bundle import failed_export
from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.measured_sizes import Cell, MeasuredSizes, ways_out
from mobilesam_export.parity.cases import PHOTOS, QUICK_PHOTO, PromptKind
from mobilesam_export.parity.gates import FLOAT16, FLOAT32, with_min_iou
from mobilesam_export.parity.own_photos import LONGEST_SIDE, MOST_PHOTOS, own_photos
from mobilesam_export.pipeline import verify_bundle
from mobilesam_export.targets.choices import gates_for
from mobilesam_export.targets.coreml.precision.samples import encoder_samples
from mobilesam_export.targets.tflite.precision import calibration_samples
from reference.checkpoint import weights_sha256
from reference.errors import ImageError
from reference.mobile_sam import MobileSam
from tests.fake_target import install, write_small_files
from tests.randomised import randomised_sam
from tests.reference_runtime import Floats, ReferenceRuntime, SwappedXY

COFFEE = PHOTOS[1:2]


class ALittleOff(ReferenceRuntime):
    """Every outline is a little off, as rounding does it: near enough for a lower gate, too far for float32's."""

    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        masks, iou = super().decode(image_embeddings, point_coords, point_labels, mask_input)
        return masks + np.float32(0.02) * masks.std(), iou


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=64)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "bundles" / "dist"


def export(sam: MobileSam, out: Path, **options: Any) -> mobilesam_export.Bundle:
    return mobilesam_export.export(sam, out_dir=out, **{"photos": COFFEE, **options})


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(ExportError) as raised:
        action()
    return str(raised.value)


def test_a_failed_gate_keeps_overlay_and_report_and_ends_in_what_to_do_next(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam, runtime=ALittleOff)
    with pytest.raises(ParityError) as raised:
        export(sam, out, precision="float16")
    lines = str(raised.value).splitlines()
    report = json.loads((out.with_name("dist.failed") / "report-onnx.json").read_text())
    lowest = report["parity"]["worst_mask"]["mask_iou"]
    assert FLOAT16.mask_iou.limit > lowest > 0.9
    assert lines[-2] == f"overlay and report: {out}.failed"
    least = int(lowest * 1000) / 1000
    assert lines[-1] == f"next: --image-size 1024 or --precision onnx=float32 or --min-iou {least:g} or --no-verify"
    assert sorted(path.name for path in out.parent.iterdir()) == ["dist.failed"]
    kept = out.with_name("dist.failed")
    assert sorted(path.name for path in kept.iterdir()) == ["overlay-onnx.png", "report-onnx.json"]
    assert Image.open(kept / "overlay-onnx.png").width == 256
    assert (report["target"], report["precision"], report["image_size"]) == ("onnx", "float16", 64)
    assert report["parity"]["passed"] is False
    assert report["parity"]["failures"]
    # The way that it names is one.
    judged = export(sam, out, precision="float16", min_iou=least).manifest.targets["onnx"].parity
    assert judged is not None
    assert judged["judged"] == {"level": "full", "photos": "own", "min_iou": least}
    assert judged["gates"]["mask_iou"] == least
    assert not kept.exists()


def test_a_broken_artifact_is_not_offered_a_lower_gate(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam, runtime=SwappedXY)
    assert refusal(lambda: export(sam, out)).endswith("\nnext: --image-size 1024 or --no-verify")


def test_the_targets_that_passed_are_a_way_out(sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, sam)
    install(monkeypatch, sam, "coreml", runtime=SwappedXY)
    install(monkeypatch, sam, "tflite", runtime=SwappedXY)
    line = refusal(lambda: export(sam, out, targets="all")).splitlines()[-1]
    assert line.startswith(
        "next: for coreml --target onnx, which passed or --image-size 1024 or --precision coreml=flo"
    )
    assert "; for tflite --target onnx, which passed or --image-size 1024 or --no-verify" in line
    names = sorted(path.name for path in out.with_name("dist.failed").iterdir())
    assert names == ["overlay-coreml.png", "overlay-tflite.png", "report-coreml.json", "report-tflite.json"]


def test_somebody_s_files_in_the_failed_folder_stay(sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = out.with_name("dist.failed")
    kept.mkdir(parents=True)
    (kept / "notes.txt").write_text("mine")
    install(monkeypatch, sam, runtime=SwappedXY)
    refusal(lambda: export(sam, out))
    install(monkeypatch, sam)
    export(sam, out)
    assert [path.name for path in kept.iterdir()] == ["notes.txt"]


def test_a_failure_is_told_even_if_nothing_can_be_kept_of_it(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out.parent.mkdir()
    out.with_name("dist.failed").write_text("a file in the way")
    install(monkeypatch, sam, runtime=SwappedXY)
    lines = refusal(lambda: export(sam, out)).splitlines()
    assert lines[0] == "nothing was written:"
    assert lines[-2].startswith("overlay and report could not be kept in")
    assert out.with_name("dist.failed").read_text() == "a file in the way"


def test_a_lower_mask_gate_is_judged_by_masks_and_a_higher_one_keeps_the_rest() -> None:
    lower, higher = with_min_iou(FLOAT16, 0.95), with_min_iou(FLOAT16, 0.995)
    assert (lower.mask_iou.limit, lower.logits.limit) == (0.95, 0.7)
    assert (higher.mask_iou.limit, higher.logits.limit) == (0.995, FLOAT16.logits.limit)
    assert with_min_iou(FLOAT32, None) is FLOAT32


@pytest.mark.parametrize("value", ["nan", "-0.1", "1.01", "inf"])
def test_a_mask_gate_that_is_no_part_of_one_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "--min-iou", value]) == 1
    assert capsys.readouterr().err.startswith(f"error: got min_iou {value}, expected 0 to 1")


def test_a_mask_gate_needs_verification(sam: MobileSam, out: Path) -> None:
    assert "got min_iou 0.9 without verification" in refusal(lambda: export(sam, out, min_iou=0.9, verify=False))


def test_quick_verification_asks_every_kind_of_prompt_on_one_photo(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, sam)
    parity = export(sam, out, verify="quick", photos=PHOTOS).manifest.targets["onnx"].parity
    assert parity is not None
    assert set(parity["embeddings"]) == {QUICK_PHOTO.name}
    assert set(parity["prompts"]) == {str(kind) for kind in PromptKind}
    assert parity["judged"] == {"level": "quick", "photos": "bundled", "min_iou": None}
    assert [report.passed for report in verify_bundle(out, sam, level="quick")] == [True]
    install(monkeypatch, sam, runtime=SwappedXY)
    assert [report.passed for report in verify_bundle(out, sam, level="quick")] == [False]
    told = refusal(lambda: export(sam, out, verify="half"))
    assert told == "got verify half, expected full or quick"


def test_the_command_line_knows_full_quick_and_no_verification(
    sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    got: list[dict[str, Any]] = []

    def remember(*_: object, **options: Any) -> None:
        got.append(options)
        raise ExportError("seen")

    monkeypatch.setattr("reference.load_mobile_sam", lambda *_, **__: sam)
    monkeypatch.setattr(pipeline, "export", remember)
    for arguments in ([], ["--verify"], ["--verify", "full"], ["--verify", "quick"], ["--no-verify"]):
        assert cli.main(["export", "--checkpoint", "demo", "-q", *arguments]) == 1
    assert [options["verify"] for options in got] == [True, "full", "full", "quick", False]  # True: as the target does
    capsys.readouterr()
    assert cli.main(["export", "--checkpoint", "demo", "-q", "--verify", "half"]) == 1
    assert capsys.readouterr().err == "error: got verify half, expected full or quick\n"


@pytest.mark.parametrize("wish", ["--verify", "--verify full", "--verify quick", "--photos ."])
@pytest.mark.parametrize("order", [1, -1])
def test_a_wish_for_verification_and_against_it_are_refused_before_any_work(
    wish: str, order: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference.load_mobile_sam", lambda *_, **__: pytest.fail("the weights were read first"))
    given = [word for part in (wish, "--no-verify")[::order] for word in part.split()]
    assert cli.main(["export", "--checkpoint", "demo", "-q", *given]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: got {wish}") and told.endswith("with --no-verify; leave out one of the two\n")


def test_verify_does_not_take_a_lowered_gate_from_the_manifest(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch, sam, runtime=ALittleOff)
    monkeypatch.setattr("reference.load_mobile_sam", lambda *_, **__: sam)
    checkpoint = out.parent / "mine.pt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    export(sam, out, min_iou=0.85, photos=PHOTOS)
    assert cli.main(["inspect", str(out)]) == 0
    assert "mask gate 0.85 by choice" in " ".join(capsys.readouterr().out.split())
    arguments = ["verify", str(out), "-q", "--quick", "--checkpoint", str(checkpoint)]
    assert cli.main(arguments) == 1
    *_, error, following = capsys.readouterr().err.splitlines()
    assert error == "error: onnx does not agree with the reference (exported by choice: onnx with --min-iou 0.85)"
    assert following.startswith(
        "next: mobilesam-export export --overwrite with another precision or size or, to accept"
    )
    assert cli.main([*arguments, "--min-iou", following.split()[-1]]) == 0


# Own photos


def test_own_photos_are_verified_on_with_every_kind_of_prompt(
    sam: MobileSam, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    (folder / "more.jpg").mkdir(parents=True)
    for name, photo in (("b.JPG", PHOTOS[1]), ("a.png", PHOTOS[3])):
        Image.fromarray(photo.read()).save(folder / name)
    Image.fromarray(PHOTOS[0].read()).resize((3000, 2000)).save(folder / "large.jpg")
    (folder / "notes.txt").write_text("no photo")
    (folder / ".hidden.png").write_text("no photo")
    photos = own_photos(folder)
    assert [photo.name for photo in photos] == ["a.png", "b.JPG", "large.jpg"]
    for photo in photos:
        height, width, _ = photo.read().shape
        assert max(height, width) <= LONGEST_SIDE
        for case in photo.cases():
            corners = [] if case.box is None else [case.box[:2], case.box[2:]]
            assert all(0 <= x < width and 0 <= y < height for x, y in [*case.points, *corners])
    assert photos[2].read().shape == (683, LONGEST_SIDE, 3)
    install(monkeypatch, sam)
    parity = export(sam, out, photos=folder).manifest.targets["onnx"].parity
    assert parity is not None
    assert set(parity["embeddings"]) == {"a.png", "b.JPG", "large.jpg"}
    assert parity["judged"]["photos"] == "own"
    (quick,) = verify_bundle(out, sam, level="quick", photos=folder)
    assert [embedding.photo for embedding in quick.embeddings] == ["a.png"]


def test_a_photo_whose_name_cannot_be_printed_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a\nb.png")
    with pytest.raises(ImageError, match="expected a name that can be printed; rename it"):
        own_photos(tmp_path)


def test_a_folder_without_photos_or_with_a_damaged_one_is_refused_before_any_work(
    sam: MobileSam, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_work(*_: Any, **__: Any) -> MobileSam:
        raise AssertionError("the weights were read first")

    monkeypatch.setattr("reference.load_mobile_sam", no_work)

    def told(folder: Path) -> str:
        assert cli.main(["export", "--checkpoint", "demo", "--photos", str(folder), "--out", str(tmp_path / "d")]) == 1
        return capsys.readouterr().err

    assert "expected a folder with photos" in told(tmp_path / "missing")
    (tmp_path / "photos").mkdir()
    assert "holds no photo, expected files that end in .jpg" in told(tmp_path / "photos")
    (tmp_path / "photos" / "bad.jpg").write_text("no photo")
    assert "bad.jpg" in told(tmp_path / "photos")
    for i in range(MOST_PHOTOS):
        (tmp_path / "photos" / f"{i}.png").touch()
    with pytest.raises(ImageError, match="holds 65 photos, expected at most 64"):
        own_photos(tmp_path / "photos")


# Own photos to calibrate on


def test_calibration_photos_go_to_the_precisions_that_take_them_and_are_counted_in_the_manifest(
    sam: MobileSam, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    got: dict[str, Any] = {}

    def remember(sam: MobileSam, out_dir: Path, **options: Any) -> list[Path]:
        got[out_dir.name] = options.get("calibration")
        return write_small_files(sam, out_dir, **options)

    for target in ("onnx", "coreml", "tflite"):
        install(monkeypatch, sam, target, write=remember)
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(PHOTOS[1].read()).save(folder / "a.png")
    precision = {"coreml": "w8a8", "tflite": "int8"}
    entries = export(sam, out, targets="all", precision=precision, calibration=folder, verify=False).manifest.targets
    assert got == {"onnx": None, "coreml": [folder / "a.png"], "tflite": None}
    assert {target: entry.notes.get("calibration_photos") for target, entry in entries.items()} == {
        "onnx": None, "coreml": 1, "tflite": None,
    }  # fmt: skip
    assert Manifest.read(out).targets == entries
    common = ["export", "--checkpoint", "demo", "--target", "tflite", "--out", str(tmp_path / "none")]
    assert cli.main([*common, "--calibration", str(folder)]) == 1
    assert "only these precisions take: auto, coreml=w8a8, tflite=int8_static, tflite=int8_s" in capsys.readouterr().err
    (folder / "b.jpg").write_text("no photo")
    assert cli.main([*common, "--precision", "int8_static", "--calibration", str(folder)]) == 1
    assert "b.jpg" in capsys.readouterr().err


def test_calibration_takes_the_photos_that_are_given_mirrored(tmp_path: Path) -> None:
    left_half = np.zeros((64, 64, 3), np.uint8)
    left_half[:, :32] = 200
    Image.fromarray(left_half).save(tmp_path / "a.png")
    for samples, bundled in (
        (encoder_samples(64, photos=[tmp_path / "a.png"]), encoder_samples(64)),
        (calibration_samples(64, photos=[tmp_path / "a.png"]), calibration_samples(64)),
    ):
        (sample,) = samples
        assert len(bundled) == len(PHOTOS)
        image = sample["image"][0]
        image = image if image.shape[-1] == 3 else image.transpose(1, 2, 0)
        assert (image[:, :32] == 0).all()
        assert (image[:, 32:] == 200).all()


# What is known to miss


def cell(target: str, precision: str, image_size: int, lowest: float, min_iou: float | None = None) -> Cell:
    gate = gates_for(target, precision).mask_iou.limit
    missed = lowest < gate
    failure = f"chelsea, points, multi mask 3: mask IoU {lowest} < {gate}" if missed else None
    return Cell(target, precision, image_size, gate, lowest, 5 * missed, failure, min_iou if missed else None, {})


def table_of(sam: MobileSam, *cells: Cell) -> MeasuredSizes:
    return MeasuredSizes("demo", weights_sha256(sam), "a test", cells)


@pytest.fixture
def known(sam: MobileSam, monkeypatch: pytest.MonkeyPatch) -> MeasuredSizes:
    """At 64 Core ML's float16 misses and float32 passes; float16 passes at 96 and at 1024, int8 at 128."""
    table = table_of(
        sam,
        cell("coreml", "float16", 64, 0.972, 0.972),
        cell("coreml", "float32", 64, 0.9999),
        cell("coreml", "float16", 96, 0.995),
        cell("coreml", "float16", 1024, 0.996),
        cell("coreml", "int8", 128, 0.98),
    )
    monkeypatch.setattr(pipeline.MeasuredSizes, "read", classmethod(lambda cls: table))
    return table


@pytest.mark.usefixtures("known")
def test_a_known_miss_is_refused_at_once_with_the_reason_and_the_nearest_that_works(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_work(*_: Any, **__: Any) -> list[Path]:
        raise AssertionError("it was written first")

    install(monkeypatch, sam, "coreml", write=no_work)
    reason, following = refusal(lambda: export(sam, out, targets="coreml", photos=PHOTOS)).splitlines()
    assert reason == (
        "coreml float16 at 64 is known to miss its gate with these weights: lowest mask IoU 0.9720, expected at least "
        "0.99, 5 checks missed, such as chelsea, points, multi mask 3: mask IoU 0.972 < 0.99 (measured on demo); "
        "nothing was started"
    )
    assert following == "next: --image-size 96 or --precision coreml=float32 or --min-iou 0.972 or --no-verify"
    assert "--min-iou 0.972" in refusal(
        lambda: export(sam, out, targets="coreml", photos=PHOTOS, min_iou=0.98, verify="quick")
    )
    assert not out.parent.exists()


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    "options",
    [
        {"verify": False},
        {"min_iou": 0.97},
        {"precision": "float32"},
        {"precision": "palette6"},  # not measured
        {"targets": "onnx"},
        {"photos": COFFEE},  # measured on other photos
        {"image_input": "tensor"},  # measured without
    ],
    ids=str,
)
def test_what_the_table_does_not_name_is_exported_and_judged(
    sam: MobileSam, out: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    written = []

    def remember(sam: MobileSam, out_dir: Path, **options: Any) -> list[Path]:
        written.append(out_dir)
        return write_small_files(sam, out_dir, **options)

    for target in ("onnx", "coreml"):
        install(monkeypatch, sam, target, write=remember)
    export(sam, out, **{"targets": "coreml", "photos": PHOTOS, **options})
    assert len(written) == 1


def test_other_weights_know_nothing_of_the_table(known: MeasuredSizes) -> None:
    assert known.of(known.weights_sha256) is known
    assert known.of("other").cells == ()
    assert ways_out("coreml", "float16", 512, known.of("other"), None) == [
        "--image-size 1024", "--precision coreml=float32", "--no-verify",
    ]  # fmt: skip


def test_ways_out_name_nothing_that_is_known_to_miss(sam: MobileSam) -> None:
    misses = [cell("coreml", "float16", size, 0.5) for size in (512, 1024)] + [cell("coreml", "int8", 512, 0.5)]
    table = table_of(sam, *misses, cell("coreml", "float32", 512, 1.0))
    assert ways_out("coreml", "int8", 512, table, None) == [
        "--image-size 1024", "--precision coreml=float32", "--no-verify",
    ]  # fmt: skip
    assert ways_out("coreml", "float16", 512, table, None) == ["--precision coreml=float32", "--no-verify"]


def test_a_table_is_read_as_it_was_written_and_in_order(sam: MobileSam, tmp_path: Path) -> None:
    cells = (
        cell("onnx", "float32", 320, 1.0),
        cell("coreml", "float16", 512, 0.9),
        cell("coreml", "float16", 768, 1.0),
    )
    table = table_of(sam, *cells)
    table.write(tmp_path / "table.json")
    assert MeasuredSizes.read(tmp_path / "table.json") == replace(table, cells=(cells[2], cells[1], cells[0]))
    assert MeasuredSizes.read(tmp_path / "none.json").cells == ()


def test_nothing_is_left_to_forget_after_a_first_success(tmp_path: Path) -> None:
    failed_export.forget(tmp_path / "dist", ["onnx"])
    assert list(tmp_path.iterdir()) == []
