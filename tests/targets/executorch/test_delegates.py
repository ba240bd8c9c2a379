"""Core ML and Vulkan behind ExecuTorch: what is written, how it is judged without them, and what is refused."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mobilesam_export import cli, export
from mobilesam_export.contract import DEFAULT_MAX_POINTS
from mobilesam_export.errors import ExportError
from mobilesam_export.photos import PHOTO_DIR
from mobilesam_export.point_slots import fill_slots
from mobilesam_export.targets.executorch.delegates import COREML, VULKAN, Delegate
from reference.mobile_sam import MobileSam
from tests.randomised import randomised_student
from tests.targets.executorch.conftest import IMAGE_SIZE
from tests.targets.prompts import Prompt, every_kind

pytest.importorskip("executorch", reason="needs pip install 'mobilesam-export[executorch]'")

from mobilesam_export.targets.coreml.executor import MLProgram
from mobilesam_export.targets.executorch import write as to_executorch
from mobilesam_export.targets.executorch.partition import calls_of, program_of
from mobilesam_export.targets.executorch.ports import read_written
from mobilesam_export.targets.executorch.runtime import ExecutorchRuntime

KINDS = ("point", "points", "box", "box and points", "mask", "refinement")
FLOAT32 = 5e-5  # another order of sums than PyTorch's, over the standard deviation
IN_CORE_ML = 2e-4  # its converter merges operators, which changes the order again
COMPILE_ONLY = "compile-only: files for ExecuTorch's Core ML delegate need macOS or iOS and were not run"


@pytest.fixture(scope="session")
def coreml_files(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return to_executorch.write(sam, tmp_path_factory.mktemp("coreml"), delegate="coreml")


@pytest.fixture(scope="session")
def vulkan_files(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return to_executorch.write(sam, tmp_path_factory.mktemp("vulkan"), delegate="vulkan")


@pytest.fixture(params=[COREML, VULKAN], ids=["coreml", "vulkan"])
def delegate(request: pytest.FixtureRequest) -> Delegate:
    found: Delegate = request.param
    return found


@pytest.fixture
def its_files(delegate: Delegate, request: pytest.FixtureRequest) -> list[Path]:
    found: list[Path] = request.getfixturevalue(f"{delegate.name}_files")
    return found


def relative_error(got: np.ndarray | Tensor, expected: Tensor) -> float:
    """Largest difference over the expected standard deviation."""
    return float((torch.as_tensor(got) - expected).abs().max() / expected.std())


def feeds_of(embeddings: Tensor, prompt: Prompt) -> list[Tensor]:
    """The decoder's inputs, in their order."""
    coords, labels = (torch.from_numpy(a) for a in fill_slots(*(t.numpy() for t in prompt.slots()), DEFAULT_MAX_POINTS))
    low = IMAGE_SIZE // 4
    mask = torch.zeros(1, 1, low, low) if prompt.mask is None else prompt.mask
    return [embeddings.permute(0, 2, 3, 1), coords, labels, mask, torch.tensor([float(prompt.mask is not None)])]


def test_the_graphs_of_every_delegate_equal_the_reference(
    delegate: Delegate, sam: MobileSam, image: Tensor, embeddings: Tensor
) -> None:
    encoder, decoder = to_executorch.graphs_for(delegate, sam, "float32", DEFAULT_MAX_POINTS)
    with torch.no_grad():
        assert relative_error(encoder(image.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), embeddings) < FLOAT32
        for prompt in (every_kind(IMAGE_SIZE)[kind] for kind in KINDS):
            expected = sam.predict_masks(embeddings, prompt.points, prompt.box, prompt.mask)
            for got, wanted in zip(decoder(*feeds_of(embeddings, prompt)), expected, strict=True):
                assert relative_error(got, wanted) < FLOAT32


def test_an_image_encoder_of_convolutions_is_one_partition_too(delegate: Delegate) -> None:
    sam = randomised_student("resnet18", image_size=64)
    encoder, _ = to_executorch.graphs_for(delegate, sam, "float32", DEFAULT_MAX_POINTS)
    # More partitions than one are an error.
    assert to_executorch.lower(encoder, to_executorch.encoder_sample(64), {}, delegate=delegate)


def test_each_file_is_one_partition_of_its_delegate_with_the_ports_of_the_others(
    delegate: Delegate, its_files: list[Path], files: list[Path]
) -> None:
    for path in its_files:
        assert calls_of(path) == {"backends": [delegate.backend], "partitions": 1, "outside": []}
    written, usual = read_written(*its_files), read_written(*files)
    assert (written.encoder_inputs, written.encoder_outputs) == (usual.encoder_inputs, usual.encoder_outputs)
    assert (written.decoder_inputs, written.decoder_outputs) == (usual.decoder_inputs, usual.decoder_outputs)
    assert written.metadata == {"precision": "float32", "delegate": delegate.name}
    assert usual.metadata.get("delegate") is None


class CoreMLPart:
    """The package that a file has for Core ML, run by our executor of ML Programs, in place of Apple's runtime."""

    def __init__(self, path: Path, folder: Path) -> None:
        from executorch.backends.apple.coreml import executorchcoreml

        (delegate,) = program_of(path).backend_delegate_data
        folder.mkdir()
        assert executorchcoreml.unflatten_directory_contents(bytes(delegate.data), str(folder))
        (about,) = folder.rglob("metadata.json")
        names = json.loads(about.read_text())
        self.inputs, self.outputs = names["inputNames"], names["outputNames"]
        self.program = MLProgram(about.parent / "model.mlpackage")
        self.kinds = [operation.kind for operation in self.program.body.operations]

    def __call__(self, *inputs: Tensor) -> list[np.ndarray]:
        feeds = {name: np.ascontiguousarray(value) for name, value in zip(self.inputs, inputs, strict=True)}
        answers = self.program.run(feeds)
        return [answers[name] for name in self.outputs]


def test_core_mls_part_of_the_files_equals_the_reference(
    coreml_files: list[Path], sam: MobileSam, image: Tensor, embeddings: Tensor, tmp_path: Path
) -> None:
    encoder, decoder = (CoreMLPart(path, tmp_path / path.stem) for path in coreml_files)
    (got,) = encoder(image.permute(0, 2, 3, 1))
    assert relative_error(got.transpose(0, 3, 1, 2), embeddings) < IN_CORE_ML
    for prompt in (every_kind(IMAGE_SIZE)[kind] for kind in KINDS):
        with torch.no_grad():
            expected = sam.predict_masks(embeddings, prompt.points, prompt.box, prompt.mask)
        for answer, wanted in zip(decoder(*feeds_of(embeddings, prompt)), expected, strict=True):
            assert relative_error(answer, wanted) < IN_CORE_ML
    # Ours spells LayerNorm out for ExecuTorch; Core ML has it as one operator again.
    assert (encoder.kinds.count("layer_norm"), decoder.kinds.count("layer_norm")) == (22, 12)
    assert (encoder.kinds.count("transpose"), decoder.kinds.count("transpose")) == (22, 2)  # one a port more


def copied(monkeypatch: pytest.MonkeyPatch, files: list[Path]) -> None:
    """Let exports give these files instead of half a minute's lowering."""

    def write(_sam: MobileSam, out_dir: Path, **arguments: Any) -> list[Path]:
        assert arguments["delegate"] == COREML.name
        return [Path(shutil.copy(path, out_dir)) for path in files]

    monkeypatch.setattr(to_executorch, "write", write)


def test_a_bundle_says_that_it_was_not_run_and_every_command_does_in_one_line(
    coreml_files: list[Path],
    sam: MobileSam,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("reference.load_mobile_sam", lambda *_, **__: sam)
    copied(monkeypatch, coreml_files)
    out = tmp_path / "dist"
    command = ["export", "--target", "executorch", "--delegate", "coreml", "--image-size", str(IMAGE_SIZE)]
    assert cli.main([*command, "--no-verify", "--out", str(out)]) == 0
    assert f"exported without verification ({COMPILE_ONLY})" in " ".join(capsys.readouterr().err.split())
    entry = json.loads((out / "manifest.json").read_text())["targets"]["executorch"]
    assert entry["options"] == {"delegate": "coreml"}
    assert entry["parity"] is None
    assert entry["notes"]["not_run"] == COMPILE_ONLY
    part = {"backends": ["CoreMLBackend"], "partitions": 1, "outside": []}
    assert entry["notes"]["delegates"] == {"encoder": part, "decoder": part}
    photo, answer = str(PHOTO_DIR / "coffee.png"), str(tmp_path / "answer.png")
    for asked in (
        ["verify", str(out)],
        ["segment", photo, "--bundle", str(out), "--point", "300,150", "--out", answer],
        ["everything", photo, "--bundle", str(out), "--out", answer],
    ):
        assert cli.main(asked) == 1
        said = capsys.readouterr().err.strip().splitlines()
        assert COMPILE_ONLY in " ".join(said)
        assert not any("Traceback" in line for line in said)


def test_files_that_are_not_run_here_are_not_opened(delegate: Delegate, its_files: list[Path]) -> None:
    with pytest.raises(ExportError, match=rf"be run here \(compile-only: .*{delegate.title}.*--delegate xnnpack"):
        ExecutorchRuntime(*its_files)


def test_a_delegate_that_executorch_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for delegate, module in (
        (VULKAN, "executorch.backends.vulkan.partitioner.vulkan_partitioner"),
        (COREML, "executorch.backends.apple.coreml.compiler"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ExportError, match=rf"cannot write for {delegate.title} \(.*\); choose --delegate xnnpack"):
            to_executorch.partitioner_of(delegate)


@pytest.mark.parametrize(
    ("target", "options", "told"),
    [
        ("executorch", {"delegate": "coreml"}, r"cannot be verified \(compile-only: .*\); add --no-verify"),
        ("executorch", {"delegate": "metal", "verify": False}, "got delegate metal, expected xnnpack, coreml, vulkan"),
        (
            "executorch",
            {"delegate": "vulkan", "precision": "int8_dynamic", "verify": False},
            "got precision int8_dynamic for delegate vulkan, expected float32",
        ),
        ("onnx", {"delegate": "coreml", "verify": False}, "delegate coreml is for executorch, got target onnx"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    target: str, options: dict[str, Any], told: str, sam: MobileSam, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=told):
        export(sam, target, tmp_path / "dist", **options)
    assert list(tmp_path.iterdir()) == []
