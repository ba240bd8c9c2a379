"""On an emulated ARM64 processor the files load, give the reference's masks, and their instructions are counted."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.emulator.arm64 import CORES, Machine, Runtime
from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.contract import DEFAULT_MAX_POINTS
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.parity.compare import Answers, ask
from mobilesam_export.parity.report import ParityReport, judge
from mobilesam_export.targets import named
from reference import Predictor, load_mobile_sam
from reference.mobile_sam import MobileSam

pytestmark = pytest.mark.arm

SMALL = 224  # no window reaches beyond the grid, so that an encoder pass takes ten seconds
COFFEE = (PHOTOS[1],)  # not square: with padding
Files = Callable[[str, str], list[Path]]


@pytest.fixture(scope="module")
def machine() -> Machine:
    machine = Machine()
    if missing := machine.missing():
        pytest.skip(missing)
    if not machine.is_set_up:
        pytest.skip("the emulated system is not set up; python -m benchmarks.arm --set-up does that in 15 s")
    return machine


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return load_mobile_sam("demo", SMALL)


@pytest.fixture(scope="module")
def expected(sam: MobileSam) -> Answers:
    return ask(Predictor(sam), COFFEE)


@pytest.fixture(scope="module")
def files(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Encoder and decoder by target and precision, written when they are asked for."""

    @functools.cache
    def written(target: str, precision: str) -> list[Path]:
        into = tmp_path_factory.mktemp(f"{target}-{precision}")
        options = {option.name: option.default for option in named(target).options}
        return named(target).write(
            sam, into, precision=precision, options=options, calibration=None, metadata={}, progress=lambda _: None
        )

    return written


def parity(
    target: str, precision: str, files: list[Path], machine: Machine, core: str, expected: Answers
) -> ParityReport:
    """Every kind of prompt on one photo, by the gates that hold on x86-64."""
    slots = DEFAULT_MAX_POINTS if target == "tflite" else None
    with Runtime(*files, image_size=SMALL, max_points=slots, machine=machine, core=core) as runtime:
        got = ask(BundlePredictor(runtime, "weights"), COFFEE, expected)
    gates = next(each.gates for each in named(target).precisions if each.name == precision)
    return judge(f"{target} {precision}", gates, expected, got)


@pytest.mark.parametrize(
    ("target", "precision", "core"),
    [
        ("onnx", "float32", "cortex-a76"),
        ("onnx", "int8", "cortex-a76"),
        ("onnx", "int8", "i8mm"),
        ("tflite", "float32", "cortex-a76"),
        ("tflite", "int8_dynamic", "cortex-a76"),
        ("tflite", "int8_dynamic", "i8mm"),
    ],
)
def test_the_files_load_and_give_the_references_masks(
    target: str, precision: str, core: str, machine: Machine, files: Files, expected: Answers
) -> None:
    report = parity(target, precision, files(target, precision), machine, core, expected)
    print(report.summary())
    assert report.passed, report.describe()


def test_files_of_other_weights_are_found_out(
    sam: MobileSam, machine: Machine, expected: Answers, tmp_path: Path
) -> None:
    from mobilesam_export.targets.onnx.write import write

    other = load_mobile_sam("demo", SMALL)
    with torch.no_grad():
        other.image_encoder.neck[0].weight[:8] *= -1
    report = parity("onnx", "float32", write(other, tmp_path), machine, "cortex-a76", expected)
    assert not report.passed


@pytest.mark.parametrize("core", ["cortex-a76", "i8mm"])
def test_a_matrix_product_takes_its_multiply_adds_and_no_more(core: str, machine: Machine, tmp_path: Path) -> None:
    side = 256
    weight = np.random.default_rng(0).standard_normal((side, side), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["image", "weight"], ["image_embeddings"])],
        "product",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [side, side])],
        [helper.make_tensor_value_info("image_embeddings", TensorProto.FLOAT, [side, side])],
        [numpy_helper.from_array(weight, "weight")],
    )
    path = tmp_path / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    image = np.random.default_rng(1).standard_normal((side, side), np.float32)
    counts = tmp_path / "counts.jsonl"
    with Runtime(path, path, image_size=side, machine=machine, core=core, counts=counts) as runtime:
        product = runtime.encode(image)
    np.testing.assert_allclose(product, image @ weight, atol=1e-4)  # 256 sums of float32
    instructions = runtime.first_pass["encode"]
    assert instructions["float_multiply_add"] == side**3 // 4  # four in a register of 128 bits
    assert instructions["int8_dot"] == instructions["int8_matrix"] == instructions["outer_product"] == 0
    assert side**3 // 4 < sum(instructions.values()) < side**3 // 2


def test_a_file_that_does_not_load_is_told_with_what_the_runtime_said(machine: Machine, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    with (
        Runtime(path, path, image_size=SMALL, machine=machine) as runtime,
        pytest.raises(Exception, match=r"ended with 1: .*INVALID_PROTOBUF"),
    ):
        runtime.encode(np.zeros((1, 3, SMALL, SMALL), np.float32))


def test_every_core_is_emulated_and_numpy_runs_on_it(machine: Machine) -> None:
    import subprocess

    program = "import platform, numpy; print(platform.machine(), int(numpy.arange(10).sum()))"
    for core in CORES:
        done = subprocess.run(
            [*machine.command(core), "-c", program], env=machine.environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == "aarch64 45\n", core
