"""What is no rounding fails the parity gates: a wrong weight in a saved package, swapped axes.

At 224 with the demonstration weights; only the decoders are exchanged.
"""

import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.parity.compare import Answers, ask
from mobilesam_export.parity.gates import FLOAT32, Gates
from mobilesam_export.parity.report import ParityReport, judge
from mobilesam_export.targets.coreml import convert as coreml_convert
from mobilesam_export.targets.coreml import write as to_coreml
from mobilesam_export.targets.coreml.decoder import PromptDecoderCoreML
from mobilesam_export.targets.coreml.executor import MLProgram
from mobilesam_export.targets.coreml.executor.package import open_package
from mobilesam_export.targets.coreml.parts import constant_name, constants_of
from mobilesam_export.targets.coreml.precision.compress import compress
from mobilesam_export.targets.coreml.precision.recipes import RECIPES
from mobilesam_export.targets.coreml.runtime import CoreMLRuntime, Floats
from reference import Predictor, load_mobile_sam
from reference.mobile_sam import MobileSam

SIZE = 224
photos = PHOTOS[1:3]  # one more and one less than square, both padded


@dataclass(frozen=True)
class Trained:
    """The demonstration weights, their float32 packages, and the reference's answers."""

    sam: MobileSam
    encoder: Path
    decoder: Path
    expected: Answers

    def judge(self, decoder: Path, gates: Gates = FLOAT32) -> ParityReport:
        return self.judge_runtime(CoreMLRuntime(self.encoder, decoder), gates)

    def judge_runtime(self, runtime: CoreMLRuntime, gates: Gates = FLOAT32) -> ParityReport:
        return judge("coreml", gates, self.expected, ask(BundlePredictor(runtime, "any"), photos, self.expected))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    sam = load_mobile_sam("demo", SIZE)
    folder = tmp_path_factory.mktemp("trained")
    encoder, decoder = to_coreml.write(sam, folder, precision="float32", image_input="tensor")
    return Trained(sam, encoder, decoder, ask(Predictor(sam), photos))


def test_the_untouched_packages_pass(trained: Trained) -> None:
    report = trained.judge(trained.decoder)
    assert report.passed, report.describe()


def test_a_wrong_weight_in_the_blob_fails(trained: Trained, tmp_path: Path) -> None:
    package = Path(shutil.copytree(trained.decoder, tmp_path / "wrong.mlpackage"))
    function = open_package(package).spec.mlProgram.functions["main"]
    for op in function.block_specializations[function.opset].operations:
        if op.type == "const" and op.outputs[0].name == "layers_0_self_attn_v_proj_weight_weight":
            record = op.attributes["val"].blobFileValue.offset
    path = package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    blob = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<Q", blob, record + 16)
    row = np.frombuffer(blob, np.float32, 256, start)
    row[:] = row[::-1].copy()  # one output channel of 256 with its inputs reversed
    path.write_bytes(blob)
    report = trained.judge(package)
    assert not report.passed
    assert report.worst is not None and report.worst.mask_iou < 0.99


def test_swapped_axes_fail(trained: Trained) -> None:
    class Swapped(CoreMLRuntime):
        def decode(
            self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
        ) -> tuple[Floats, Floats]:
            return super().decode(image_embeddings, point_coords[..., ::-1], point_labels, mask_input)

    report = trained.judge_runtime(Swapped(trained.encoder, trained.decoder))
    assert not report.passed
    assert report.worst is not None and report.worst.mask_iou < 0.9


def _int8_decoder(trained: Trained, path: Path) -> Path:
    graph = PromptDecoderCoreML(trained.sam)
    model = coreml_convert.convert_decoder(graph, "float16", "iOS17", 8, False, compressed_later=True)
    compress(model, graph, RECIPES["int8"]).save(str(path))
    return path


@pytest.fixture(scope="module")
def int8_decoder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compressed as the recipe says."""
    return _int8_decoder(trained, tmp_path_factory.mktemp("int8") / "int8.mlpackage")


def test_the_recipe_compresses_the_perceptrons_and_nothing_else_of_the_decoder(
    trained: Trained, int8_decoder: Path
) -> None:
    program = MLProgram(int8_decoder)
    function = program.package.spec.mlProgram.functions["main"]
    kinds: Mapping[str, str] = {
        op.outputs[0].name: op.type
        for op in function.block_specializations[function.opset].operations
        if op.type.startswith("constexpr_")
    }
    eight_bit = [name for name, kind in kinds.items() if kind == "constexpr_affine_dequantize"]
    assert len(eight_bit) == 2 * 2 + 3 + 2  # both blocks' MLPs, three layers of kernels, two of IoU (the last is small)
    perceptrons = constants_of(PromptDecoderCoreML(trained.sam), PromptDecoderCoreML.PERCEPTRONS)
    assert {constant_name(name.removesuffix("_quantized")) for name in eight_bit} < perceptrons
    assert not [name for name in kinds if "attn" in name]
