"""Options are described once, and what cannot be done is refused before any work, in one line."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from mobilesam_export import __version__, cli, export, targets
from mobilesam_export.contract import DEFAULT_IMAGE_SIZE
from mobilesam_export.errors import ExportError
from mobilesam_export.jobs import plan
from mobilesam_export.options import IMAGE_SIZE
from mobilesam_export.targets import names
from mobilesam_export.targets.choices import (
    gates_for,
    missing_packages,
    names_beyond_precision,
    option_of,
    options_of,
    precisions_of,
    targets_of,
)
from mobilesam_export.targets.coreml import write as to_coreml
from mobilesam_export.targets.coreml.precision.recipes import RECIPES as COREML_RECIPES
from mobilesam_export.targets.coreml.target import DEPLOYMENT_TARGETS
from mobilesam_export.targets.onnx import precision as onnx_precision
from mobilesam_export.targets.onnx import write as to_onnx
from mobilesam_export.targets.tflite import write as to_tflite
from mobilesam_export.targets.tflite.recipes import RECIPES as TFLITE_RECIPES
from reference.mobile_sam import MobileSam
from tests.fake_target import install, write_small_files
from tests.randomised import randomised_sam

TARGETS = ("onnx", "coreml", "tflite")  # of a plain install
REFUSED = {
    "--opset 9": "got opset 9, expected 17 or 23",
    "--opset 99": "got opset 99, expected 17 or 23",
    "--target coreml --deployment-target iOS15": "got deployment_target iOS15, expected iOS16, iOS17, iOS18",
    "--target coreml --deployment-target 17": "got deployment_target 17, expected iOS16, iOS17, iOS18",
    "--target coreml --deployment-target ios17": "got deployment_target ios17, expected iOS16, iOS17, iOS18",
    "--image-size 100": "got image_size 100, expected a multiple of 32 from 32 to 2048",
    "--image-size 0": "got image_size 0, expected a multiple of 32",
    "--image-size -32": "got image_size -32, expected a multiple of 32",
    "--image-size 1000000000": "got image_size 1000000000, expected a multiple of 32 from 32 to 2048",
    "--precision int4": "got precision int4 for onnx, expected float32, float16, int8",
    "--precision float64 --target coreml": "got precision float64 for coreml, expected float32, float16, int8",
    "--target all --precision int8_dynamic": "--precision coreml=float16,tflite=int8_dynamic",
    "--target onnx --precision tflite=int8": "got a precision for tflite, expected one of the targets onnx",
    "--precision onnx=int8,onnx=float16": "names onnx twice",
    "--precision int8,float16": "got precisions int8, float16 for one target",
    "--target onnx,ncnn": "got target ncnn, expected onnx, coreml, tflite",
    "--target onnx,": "got target '', expected onnx, coreml, tflite",
    "--max-points 1": "got max_points 1, expected 2 to 256: a click has a padding point",
    "--max-points 100000": "got max_points 100000, expected 2 to 256",
    "--target coreml --image-input uint8": "image_input uint8 is for tflite, got target coreml",
    "--target all --image-input video": "got image_input 'video', expected image or tensor for coreml, float32",
    "--target tflite --opset 17": "opset 17 is for onnx, got target tflite",
    "--target tflite --precision int8 --combined": "got int8 for a combined file",
    "--target coreml --precision w8a8 --deployment-target iOS16": "got w8a8 for iOS16",
    "--contract labelme": "got contracts ['labelme'], expected a list of anylabeling, osam, transformersjs, cvat",
    "--contract osam --contract osam": "got contracts ['osam', 'osam'], expected a list of",
    "--contract osam --contract cvat --image-size 512": "got image_size 512 for the contract osam, cvat, expected 1024",
    "--contract osam --max-points 8": "got --max-points for the contract osam",
    "--contract cvat --opset 23": "got opset 23 for the contract cvat, expected 17",
    "--contract osam --with-app-kit": "got --contract with --with-app-kit",
    "--target coreml --contract osam": "contracts ['osam'] is for onnx, got target coreml",
    "--target coreml --flexible-points --max-points 17": "got max_points 17 for a decoder of flexible points",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_done_is_refused_in_one_line_before_the_weights_are_read(
    arguments: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_work(*_: Any, **__: Any) -> MobileSam:
        raise AssertionError("the weights were read first")

    monkeypatch.setattr("reference.load_mobile_sam", no_work)
    assert cli.main(["export", "--checkpoint", "demo", "--out", str(tmp_path / "dist"), *arguments.split()]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: got ") or " is for " in lines[0]
    assert REFUSED[arguments] in lines[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "options"),
    [("onnx", {"opset": "17"}), ("onnx", {"opset": 17.5}), ("onnx", {"single_mask": "yes"}), ("onnx", {"opset": True}),
     ("tflite", {"max_points": float("nan")}), ("coreml", {"deployment_target": 17})],
)  # fmt: skip
def test_values_of_another_type_are_refused_from_python_too(target: str, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ExportError, match=f"got {name} .*, expected "):
        plan([target], None, options, verify=False)


def test_help_lists_the_choices_of_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for target in names():
        assert target in text
        for option in options_of(target):
            assert option.flag in text
            assert all(str(choice) in text for choice in option.choices)
    assert "32 to 2048, a multiple of 32 (default: 1024)" in text
    assert "coreml image or tensor, default image; tflite float32 or uint8, default float32" in text


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"mobilesam-export {__version__}\n"


def test_targets_are_given_as_lists_with_commas_or_as_all() -> None:
    assert targets_of("onnx,coreml") == ("onnx", "coreml")
    assert targets_of(["coreml", "onnx,coreml"]) == ("coreml", "onnx")
    assert targets_of(["onnx", "all"]) == tuple(t.name for t in targets.ALL if not missing_packages(t))


def test_each_target_can_have_its_own_precision() -> None:
    assert precisions_of(None, TARGETS) == {"onnx": "float32", "coreml": "float16", "tflite": "float32"}
    assert precisions_of("float16", TARGETS) == dict.fromkeys(TARGETS, "float16")
    assert precisions_of("coreml=palette6, tflite=int8_dynamic", TARGETS) == {
        "onnx": "float32", "coreml": "palette6", "tflite": "int8_dynamic",
    }  # fmt: skip
    assert precisions_of("float16,tflite=int8", TARGETS) == {"onnx": "float16", "coreml": "float16", "tflite": "int8"}
    assert precisions_of({"tflite": "int8"}, ["tflite"]) == {"tflite": "int8"}
    with pytest.raises(ExportError, match="got precision 16, expected a name, a mapping"):
        precisions_of(16, ["onnx"])  # type: ignore[arg-type]  # of a wrong type on purpose


def test_a_precision_for_each_target_reaches_its_writer_and_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    got: dict[str, str] = {}

    def remember(sam: MobileSam, out_dir: Path, *, precision: str, **options: Any) -> list[Path]:
        got[out_dir.name] = precision
        return write_small_files(sam, out_dir, **options)

    sam = randomised_sam(image_size=64)
    for target in TARGETS:
        install(monkeypatch, sam, target, write=remember)
    monkeypatch.setattr("reference.load_mobile_sam", lambda *_, **__: sam)
    arguments = ["--target", "onnx,coreml", "--target", "tflite", "--precision", "coreml=palette6,tflite=int8_dynamic"]
    common = ["--image-size", "64", "--no-verify", "-q", "--out", str(tmp_path / "dist")]
    assert cli.main(["export", *arguments, *common]) == 0
    expected = {"onnx": "float32", "coreml": "palette6", "tflite": "int8_dynamic"}
    assert got == expected
    entries = export(sam, TARGETS, tmp_path / "again", precision=expected, verify=False).manifest.targets
    assert {target: entry.precision for target, entry in entries.items()} == expected
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_the_table_says_what_the_writers_take() -> None:
    assert names()[: len(TARGETS)] == TARGETS
    recipes: dict[str, Any] = {"onnx": ["int8"], "coreml": COREML_RECIPES, "tflite": TFLITE_RECIPES}
    for target in TARGETS:
        precision = option_of(target, "precision")
        assert precision is not None
        assert {*precision.choices} == {"float32", "float16", *recipes[target]}
        assert precision.default in precision.choices
        assert all(gates_for(target, str(name)) for name in precision.choices)
    choices = {name: {t: o.choices for t in TARGETS if (o := option_of(t, name))} for name in names_beyond_precision()}
    assert choices["opset"] == {"onnx": (to_onnx.DEFAULT_OPSET, to_onnx.NEW_OPSET)}
    assert choices["image_input"] == {"coreml": to_coreml.IMAGE_INPUTS, "tflite": tuple(to_tflite.IMAGE_INPUTS)}
    assert choices["deployment_target"] == {"coreml": DEPLOYMENT_TARGETS}
    onnx_names = option_of("onnx", "precision")
    assert onnx_names is not None
    assert onnx_names.choices == onnx_precision.PRECISIONS
    assert IMAGE_SIZE.default == DEFAULT_IMAGE_SIZE


@pytest.mark.parametrize("target", TARGETS)
def test_every_option_is_a_keyword_of_its_writer_and_of_export_with_the_same_default(target: str) -> None:
    writer = {"onnx": to_onnx, "coreml": to_coreml, "tflite": to_tflite}[target].draft
    keywords = inspect.signature(writer).parameters
    for option in options_of(target):
        assert option.name in inspect.signature(export).parameters
        assert keywords[option.name].default in (None, option.default, False), option.name


def test_an_image_size_that_cannot_be_exported_is_refused_from_python_too(tmp_path: Path) -> None:
    sam = randomised_sam(image_size=64)
    sam.image_size = 2080
    with pytest.raises(ExportError, match="got image_size 2080, expected a multiple of 32 from 32 to 2048"):
        export(sam, out_dir=tmp_path / "dist")
