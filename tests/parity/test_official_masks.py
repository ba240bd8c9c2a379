"""An official decoder's masks at the photo's size are gated: each shortcut in enlarging them turns the report red."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper

from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.parity.compare import Answers, ask, chosen_by_official_rule
from mobilesam_export.parity.gates import FLOAT32, Gates, compressed
from mobilesam_export.parity.report import ParityReport, judge
from mobilesam_export.targets.onnx.runtime import OnnxRuntime
from mobilesam_export.targets.onnx.write import write
from reference.mobile_sam import MobileSam
from reference.predictor import Predictor
from tests.randomised import randomised_sam

COFFEE = (PHOTOS[1],)  # not square: there is padding to crop


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=224)


@pytest.fixture(scope="module")
def expected(sam: MobileSam) -> Answers:
    return ask(Predictor(sam), COFFEE)


@pytest.fixture(scope="module")
def files(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write(sam, tmp_path_factory.mktemp("official"), official_decoder=True)


def report_on(files: list[Path], expected: Answers, gates: Gates = FLOAT32) -> ParityReport:
    answers = ask(BundlePredictor(OnnxRuntime(*files, threads=1), "weights"), COFFEE, expected)
    return judge("onnx", gates, expected, answers)


def node_of(model: ModelProto, output: str) -> NodeProto:
    (node,) = (node for node in model.graph.node if output in node.output)
    return node


def replace_by(model: ModelProto, output: str, *nodes: NodeProto) -> None:
    """Put nodes in the place of the one that made ``output``."""
    place = list(model.graph.node).index(node_of(model, output))
    del model.graph.node[place]
    for node in reversed(nodes):
        model.graph.node.insert(place, node)


def bilinear_by(model: ModelProto, name: str, value: str) -> None:
    """Change an attribute of both resizes."""
    resizes = [node for node in model.graph.node if node.op_type == "Resize"]
    assert len(resizes) == 2
    for node in resizes:
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])


def at_half_size(model: ModelProto) -> None:
    cast = node_of(model, "official/drawn_size")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "two_pixels"))
    halved = helper.make_node("Div", [cast.input[0], "two_pixels"], ["half_size"])
    replace_by(
        model, "official/drawn_size", halved, helper.make_node("Cast", ["half_size"], ["official/drawn_size"], to=7)
    )


def without_the_crop(model: ModelProto) -> None:
    replace_by(model, "official/cropped", helper.make_node("Identity", ["official/full"], ["official/cropped"]))


def in_one_step(model: ModelProto) -> None:
    """The crop done at the low resolution: what a single resize can do at best."""
    quarter = numpy_helper.from_array(np.array([4], np.int64), "quarter")
    model.graph.initializer.append(quarter)
    crop = node_of(model, "official/cropped")
    replace_by(
        model,
        "official/cropped",
        helper.make_node("Div", [crop.input[2], "quarter"], ["low_end"]),
        helper.make_node("Slice", ["low_res_masks", crop.input[1], "low_end", crop.input[3]], ["official/cropped"]),
    )


def thresholded_first(model: ModelProto) -> None:
    full = node_of(model, "official/full")
    replace_by(
        model,
        "official/full",
        helper.make_node("Sign", [full.input[0]], ["signs"]),
        helper.make_node("Resize", ["signs", *full.input[1:]], ["official/full"], mode="linear"),
    )


SHORTCUTS: dict[str, Callable[[ModelProto], None]] = {
    "half size": at_half_size,
    "nearest": lambda model: bilinear_by(model, "mode", "nearest"),
    "no crop": without_the_crop,
    "align_corners": lambda model: bilinear_by(model, "coordinate_transformation_mode", "align_corners"),
    "asymmetric": lambda model: bilinear_by(model, "coordinate_transformation_mode", "asymmetric"),
    "one step": in_one_step,
    "thresholded first": thresholded_first,
}
LOOSEST = compressed(0.5, "looser than any that is offered")


def test_the_files_own_masks_pass_and_are_told(files: list[Path], expected: Answers) -> None:
    report = report_on(files, expected)
    assert report.passed, report.describe()
    errors = [case.enlarging_error for case in report.cases]
    assert all(error is not None and error < 0.1 * FLOAT32.enlarging.limit for error in errors)
    told = report.as_dict()
    assert {figures["enlarging_error_max"] for figures in told["prompts"].values()} == set(errors)
    assert told["gates"]["enlarging"] == FLOAT32.enlarging.limit


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_each_shortcut_in_enlarging_fails_the_loosest_gates_too(
    files: list[Path], expected: Answers, tmp_path: Path, shortcut: str
) -> None:
    decoder = onnx.load(files[1])
    SHORTCUTS[shortcut](decoder)
    onnx.save(decoder, tmp_path / files[1].name)
    report = report_on([files[0], tmp_path / files[1].name], expected, LOOSEST)
    assert {failure.gate for failure in report.failures} == {LOOSEST.enlarging}
    assert len(report.failures) == len(report.cases) == 6


def test_a_single_mask_decoders_own_mask_is_gated_too(sam: MobileSam, expected: Answers, tmp_path: Path) -> None:
    files = write(sam, tmp_path, official_decoder=True, single_mask=True)
    predictor = BundlePredictor(OnnxRuntime(*files, threads=1), "weights", single_mask=True)
    report = judge("onnx", FLOAT32, chosen_by_official_rule(expected, COFFEE), ask(predictor, COFFEE, expected))
    assert report.passed, report.describe()
    assert all(case.enlarging_error is not None for case in report.cases)


def test_other_decoders_have_nothing_to_enlarge(sam: MobileSam, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    ours = write(sam, tmp_path / "ours")
    predictor = BundlePredictor(OnnxRuntime(files[0], ours[1], threads=1), "weights")
    predictor.set_image(COFFEE[0].read())
    assert predictor.masks_of_decoder(box=(171, 15, 424, 313)) is None
