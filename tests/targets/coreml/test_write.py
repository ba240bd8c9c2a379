"""The written packages: form, metadata, options, and what is refused."""

import builtins
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mobilesam_export.contract import Contract
from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreml import write as to_coreml
from mobilesam_export.targets.coreml.executor import MLProgram
from mobilesam_export.targets.coreml.executor.package import open_package
from mobilesam_export.targets.coreml.executor.structure import Form, Structure, structure_failures, structure_of
from mobilesam_export.targets.coreml.ports import read_written
from reference.mobile_sam import MobileSam
from tests.ports import assert_meanings_are_there, canonical, described, ports
from tests.targets.coreml.conftest import IMAGE_SIZE

Pair = tuple[Path, Path]


def test_both_packages_have_the_neural_engines_form(packages: Pair) -> None:
    encoder, decoder = (structure_of(path) for path in packages)
    assert structure_failures("encoder", encoder, Form(transposes=20, layer_norms=22)) == []
    assert structure_failures("decoder", decoder, Form(transposes=2, layer_norms=12)) == []
    assert (encoder.transposes, encoder.reshapes, encoder.layer_norms, encoder.linears) == (20, 20, 22, 0)
    assert (decoder.transposes, decoder.layer_norms, decoder.linears) == (1, 12, 0)
    assert (encoder.max_rank, decoder.max_rank) == (4, 4)
    assert encoder.gathers == decoder.gathers == 0


def test_coordinates_and_positions_stay_float32_and_nothing_else(packages: Pair) -> None:
    encoder, decoder = map(MLProgram, packages)
    assert not [op for op in encoder.operations if op.kind != "cast" and op.outputs[0][1].element == "FLOAT32"]
    results = [(op.kind, op.outputs[0][1].element) for op in decoder.operations if op.kind not in ("cast", "const")]
    exact = {kind for kind, element in results if element == "FLOAT32"}
    assert {element for kind, element in results if kind in ("sin", "cos")} == {"FLOAT32"}
    # what looks at the image or carries weights that were learnt
    assert exact.isdisjoint({"softmax", "conv", "layer_norm", "gelu", "relu", "conv_transpose"})
    assert {element for kind, element in results if kind == "softmax"} == {"FLOAT16"}
    assert {declared.element for declared in decoder.inputs.values()} == {"FLOAT32"}


def test_xcode_finds_every_port_described_and_who_made_it(packages: Pair) -> None:
    for path in packages:
        description = open_package(path).spec.description
        metadata = description.metadata
        assert metadata.author and metadata.versionString and metadata.shortDescription
        assert "Apache-2.0" in metadata.license
        ports = [*description.input, *description.output]
        assert all(len(port.shortDescription) > 20 for port in ports), [port.name for port in ports]
        user = dict(metadata.userDefined)
        assert user["weights_sha256"] == "abc123"
        assert {"contract_version", "pad_colour_8bit", "point_labels", "precision"} <= set(user)
        assert "-2=absent" in user["point_labels"]
    labels = {port.name: port.shortDescription for port in open_package(packages[1]).spec.description.input}
    assert "-2 absent" in labels["point_labels"] and "model-frame" in labels["point_coords"]


def check_ports(packages: Pair, image: tuple[tuple[int, ...], str], points: int | str, max_points: int) -> None:
    """The manifest says what the packages' programs declare, and for an image what their descriptions do."""
    said = described("coreml", packages, IMAGE_SIZE)
    assert said["max_points"] == max_points
    assert_meanings_are_there(said)
    for graph, package in zip(("encoder", "decoder"), packages, strict=True):
        expected = dict(canonical(Contract(IMAGE_SIZE, 8), graph, "inputs"))
        if graph == "encoder":
            expected["image"] = image
        else:
            expected["point_coords"] = (1, points, 2), "float32"
            expected["point_labels"] = (1, points), "float32"
        assert ports(said, graph, "inputs") == expected
        assert ports(said, graph, "outputs") == canonical(Contract(IMAGE_SIZE, 8), graph, "outputs")
        declared = {name: (port.shape, port.element.lower()) for name, port in MLProgram(package).inputs.items()}
        for name, (shape, dtype) in ports(said, graph, "inputs").items():
            if dtype == "rgb_image":
                assert declared[name] == ((1, 3, *shape), "float32")
            else:
                assert declared[name] == (tuple(None if size == "points" else size for size in shape), dtype)


def test_the_manifest_says_the_ports_of_the_packages(packages: Pair, float32_packages: Pair) -> None:
    check_ports(packages, ((IMAGE_SIZE, IMAGE_SIZE), "rgb_image"), 8, 8)
    assert read_written(*packages).metadata["precision"] == "float16"
    check_ports(float32_packages, ((1, 3, IMAGE_SIZE, IMAGE_SIZE), "float32"), "points", 16)


def test_a_package_names_the_pad_colour_of_its_input_once(packages: Pair, float32_packages: Pair) -> None:
    def colours(path: Path) -> dict[str, str]:
        entries = dict(open_package(path).spec.description.metadata.userDefined)
        return {key: value for key, value in entries.items() if "colour" in key or "124" in value or "123." in value}

    for path in packages:  # an image, whose pixels are whole numbers
        assert colours(path) == {"pad_colour_8bit": "(124, 116, 104)"}
    for path in float32_packages:  # a tensor
        assert colours(path) == {"pad_colour": "(123.675, 116.28, 103.53)"}


def test_everyone_who_may_read_a_new_file_may_read_a_package(packages: Pair, tmp_path: Path) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    for package in packages:
        for path in (package, *package.rglob("*")):
            assert path.stat().st_mode == (folder if path.is_dir() else file).stat().st_mode, path


def test_the_encoder_takes_an_rgb_image(packages: Pair) -> None:
    from coremltools.proto import FeatureTypes_pb2

    image = open_package(packages[0]).spec.description.input[0].type.imageType
    assert (image.width, image.height) == (224, 224)
    assert image.colorSpace == FeatureTypes_pb2.ImageFeatureType.RGB


def test_parity_can_be_written_into_a_saved_package(sam: MobileSam, packages: Pair, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(packages[1], tmp_path / "copy.mlpackage"))
    to_coreml.record_parity([copy], "lowest mask IoU 0.99")
    spec = open_package(copy).spec
    assert spec.description.metadata.userDefined["parity"].startswith("lowest mask IoU 0.99 (executed by ")
    assert spec.mlProgram == open_package(packages[1]).spec.mlProgram
    assert not list(copy.rglob("*.unfinished"))


@pytest.mark.parametrize(("target", "version"), [("iOS16", 7), ("iOS18", 9)])
def test_other_deployment_targets_convert_and_keep_the_form(
    sam: MobileSam, tmp_path: Path, target: str, version: int
) -> None:
    encoder, decoder = to_coreml.write(sam, tmp_path, deployment_target=target, max_points=3)
    assert open_package(encoder).spec.specificationVersion == version
    assert MLProgram(decoder).inputs["point_labels"].shape == (1, 3)


def test_a_flexible_decoder_declares_its_range(float32_packages: Pair) -> None:
    ports = {port.name: port.type.multiArrayType for port in open_package(float32_packages[1]).spec.description.input}
    bounds = ports["point_labels"].shapeRange.sizeRanges[1]
    assert (bounds.lowerBound, bounds.upperBound) == (1, 16)
    assert ports["point_coords"].shapeRange.sizeRanges[1].upperBound == 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deployment_target": "iOS9"}, "got deployment target 'iOS9', expected one of iOS16, iOS17, iOS18"),
        ({"precision": "int3"}, "got precision 'int3', expected float32, float16, int8"),
        ({"precision": "w8a8", "deployment_target": "iOS16"}, "no 8-bit activations"),
        ({"image_input": "jpeg"}, "got image input 'jpeg', expected image or tensor"),
        ({"max_points": 0}, "got 0 point slots"),
        ({"max_points": 17, "flexible_points": True}, "got 17 point slots, expected 1 to 16"),
    ],
)
def test_impossible_options_are_refused_in_one_line_before_any_work(
    sam: MobileSam, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError) as caught:
        to_coreml.write(sam, tmp_path / "out", **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_unwritable_place_leaves_nothing_behind(sam: MobileSam, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ExportError, match="cannot write to"):
        to_coreml.write(sam, blocked / "out")
    assert blocked.read_text() == "in the way"


def test_a_failure_while_saving_leaves_the_old_packages(
    sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / to_coreml.ENCODER_NAME
    old.mkdir()
    (old / "mark").write_text("old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(to_coreml, "_check_structure", full)
    with pytest.raises(ExportError, match="No space left on device"):
        to_coreml.write(sam, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [to_coreml.ENCODER_NAME]
    assert (old / "mark").read_text() == "old"


def test_a_missing_converter_is_said_in_one_line(
    sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def without_coremltools(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == "coremltools":
            raise ImportError("No module named 'coremltools'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_coremltools)
    for name in [name for name in sys.modules if name.split(".")[0] == "coremltools"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ExportError, match=r"coremltools cannot be imported.*pip install coremltools"):
        to_coreml.write(sam, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_package_that_lost_its_form_is_not_shipped(
    sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def count_one_more(path: Path) -> Structure:
        structure = structure_of(path)
        return replace(structure, transposes=structure.transposes + 1)

    monkeypatch.setattr(to_coreml, "structure_of", count_one_more)
    with pytest.raises(ExportError, match="encoder: 21 transposes, expected at most 20"):
        to_coreml.write(sam, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_notes_hold_structure_and_headroom(packages: Pair) -> None:
    notes = to_coreml.notes(list(packages))
    assert notes["structure"]["encoder"]["transposes"] == 20
    headroom = notes["float16_headroom"]
    assert headroom["encoder"]["float16_operations"] > 200
    assert 0 < headroom["encoder"]["closest"][0]["used"] < 1
    # LayerNorm2d's 1e-6 lies below float16's normal numbers: a fact to report, not to hide
    assert headroom["encoder"]["smallest_epsilon"] == pytest.approx(1e-6, rel=0.05)
    assert headroom["encoder"]["subnormal_epsilons"] == 22
    assert sys.platform == "darwin" or "not by Apple's runtime" in notes["executed_by"]


def test_the_notes_warn_of_operations_close_to_overflow(packages: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    from mobilesam_export.targets.coreml.executor import headroom

    monkeypatch.setattr(headroom, "WARN_ABOVE", 0.001)
    with pytest.warns(UserWarning, match=r"Core ML encoder: operation \w+ named .* of float16's range"):
        to_coreml.notes(list(packages))
