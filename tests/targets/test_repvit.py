"""A RepViT-SAM goes through every target as MobileSAM does: folded, and with the reference's masks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mobilesam_export import cli
from mobilesam_export.bundle.predictor import load_bundle
from mobilesam_export.contract import PAD_COLOUR_8BIT, PIXEL_MEAN
from mobilesam_export.errors import ExportError
from mobilesam_export.pipeline import export
from mobilesam_export.rewrites.folded_repvit import fold_repvit
from mobilesam_export.rewrites.merge_branches import merge_branches
from mobilesam_export.targets import named
from mobilesam_export.targets.coreai.graphs import RepVitEncoderCoreAI
from mobilesam_export.targets.coreml.executor.structure import structure_of
from mobilesam_export.targets.coreml.parts import constants_of
from mobilesam_export.targets.coreml.repvit import RepVitEncoderCoreML
from mobilesam_export.targets.executorch.repvit import RepVitEncoderExecutorch
from mobilesam_export.targets.onnx.repvit import RepVitEncoderOnnx
from mobilesam_export.targets.tflite.repvit import RepVitEncoderTflite
from reference import MobileSam, load_mobile_sam
from tests.randomised import published_repvit, randomised_repvit, randomised_sam

SIDE = 128
# float32 sums in another order, over up to 54 blocks: 2e-6 of the embedding's std in the reference itself, held against
# float64; a wrong fold is off by more than 1e-2.
TOLERANCE = 5e-5
GRAPHS = {
    "onnx": RepVitEncoderOnnx,
    "coreml": RepVitEncoderCoreML,
    "tflite": RepVitEncoderTflite,
    "executorch": RepVitEncoderExecutorch,
    "coreai": RepVitEncoderCoreAI,
}
PRECISIONS = [
    ("onnx", "float32", {}),
    ("onnx", "float32", {"opset": 23}),
    ("coreml", "float16", {}),
    # Random weights in a small frame: outlines of chance move more than those of a photo's objects (0.96 here).
    ("coreml", "int8", {"min_iou": 0.9}),
    ("tflite", "float32", {"image_input": "uint8"}),
    ("executorch", "float32", {}),
    ("coreai", "float32", {}),
    pytest.param("tflite", "int8", {}, marks=pytest.mark.slow),  # half a minute, most of it the conversion once more
]


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_repvit(image_size=SIDE)


def encode(graph: nn.Module, image: Tensor) -> Tensor:
    with torch.inference_mode():
        if not isinstance(graph, RepVitEncoderTflite | RepVitEncoderExecutorch):
            embeddings: Tensor = graph(image)
            return embeddings
        answer = graph(image.permute(0, 2, 3, 1))  # BCHW -> BHWC
        embeddings = answer["image_embeddings"] if isinstance(answer, dict) else answer
        return embeddings.permute(0, 3, 1, 2)  # BHWC -> BCHW


@pytest.mark.parametrize("size", ["m0_9", "m1_1", "m2_3"])
@pytest.mark.parametrize("target", GRAPHS)
def test_every_graph_equals_the_reference(target: str, size: str) -> None:
    sam = randomised_repvit(size, 1, SIDE)
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 255
    with torch.inference_mode():
        expected = sam.image_encoder((image - sam.pixel_mean) / sam.pixel_std)
    graph = GRAPHS[target](sam)
    assert (encode(graph, image) - expected).abs().max() < TOLERANCE * expected.std()
    assert not [module for module in graph.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("target", ["coreml", "tflite"])
def test_pixels_of_the_8_bit_pad_colour_become_exact_padding(target: str, sam: MobileSam) -> None:
    photo = torch.randint(0, 256, (1, 3, 90, SIDE), generator=torch.Generator().manual_seed(0)).float()
    frame = torch.tensor(PAD_COLOUR_8BIT).reshape(1, 3, 1, 1).expand(1, 3, SIDE, SIDE).clone().float()
    frame[:, :, :90] = photo
    with torch.inference_mode():
        expected = sam.image_encoder(sam.normalise_and_pad(photo))
    graph = (RepVitEncoderCoreML if target == "coreml" else RepVitEncoderTflite)(sam, eight_bit=True)
    assert (encode(graph, frame) - expected).abs().max() < TOLERANCE * expected.std()
    exact = torch.tensor(PIXEL_MEAN).reshape(1, 3, 1, 1).expand(1, 3, SIDE, SIDE).clone()
    exact[:, :, :90] = photo
    assert (encode(GRAPHS[target](sam), exact) - expected).abs().max() < TOLERANCE * expected.std()


def test_three_branches_become_one_convolution(sam: MobileSam) -> None:
    mixer = sam.image_encoder.get_submodule("body.stages.0.blocks.0.token_mixer")
    x = torch.randn(1, 48, 9, 9, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in mixer.state_dict().items()}
    merged = merge_branches(mixer)  # type: ignore[arg-type]  # get_submodule says Module
    assert merged.kernel_size == (3, 3) and merged.groups == 48
    with torch.inference_mode():
        assert (merged(x) - mixer(x)).abs().max() < 1e-5  # weights rounded to float32, ten products a pixel
    assert all(torch.equal(value, before[name]) for name, value in mixer.state_dict().items())
    with pytest.raises(ValueError, match="train mode"):
        merge_branches(mixer.train())  # type: ignore[arg-type]  # as above
    mixer.eval()


def test_branches_of_the_first_repvit_are_refused() -> None:
    sam = MobileSam("repvit_sam_m1", image_size=64).eval()
    with pytest.raises(ValueError, match="a RepViT of 2023"):
        RepVitEncoderOnnx(sam)


def test_the_folded_form_is_of_a_repvit_alone() -> None:
    with pytest.raises(ExportError, match="got the backbone tiny_vit_5m_224, expected a RepViT-SAM's"):
        fold_repvit(randomised_sam(image_size=64))


def test_every_part_that_the_core_ml_graph_names_is_there(sam: MobileSam) -> None:
    graph = RepVitEncoderCoreML(sam)
    for part in (*graph.DEPTHWISE, *graph.BATCH_NORM_FOLDED):
        assert constants_of(graph, [part])


@pytest.mark.parametrize(("target", "precision", "options"), PRECISIONS)
def test_it_is_exported_with_parity(
    sam: MobileSam, tmp_path: Path, target: str, precision: str, options: dict[str, Any]
) -> None:
    if target in ("executorch", "coreai"):
        pytest.importorskip(named(target).packages[-1], reason=f"needs pip install 'mobilesam-export[{target}]'")
    bundle = export(sam, target, tmp_path / "out", precision=precision, verify="quick", **options)
    entry = bundle.manifest.targets[target]
    assert entry.parity is not None and entry.parity["passed"]
    assert bundle.manifest.weights.family == "RepViT-SAM m0.9"
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["weights"]["family"] == "RepViT-SAM m0.9"
    if target == "coreml":
        encoder = structure_of(tmp_path / "out" / entry.path_of("encoder"))
        assert (encoder.transposes, encoder.reshapes, encoder.layer_norms, encoder.linears) == (0, 0, 2, 0)
    if target == "tflite":
        assert entry.notes["delegates"]["encode"]["xnnpack_partitions"] == 1
    load_bundle(tmp_path / "out").set_image(torch.zeros(40, 60, 3, dtype=torch.uint8).numpy())


def test_other_tools_get_it_without_a_twin_of_no_use(tmp_path: Path) -> None:
    """What is quantised for transformers.js are linear layers, of which it has none."""
    from onnxruntime import InferenceSession

    from mobilesam_export.targets.onnx.write import write

    sam = randomised_repvit(image_size=64)
    paths = write(sam, tmp_path, contracts=["osam", "transformersjs"])
    models = sorted(path.relative_to(tmp_path).as_posix() for path in paths if path.suffix == ".onnx")
    assert [name for name in models if name.startswith("transformersjs/onnx/vision")] == [
        "transformersjs/onnx/vision_encoder.onnx",
        "transformersjs/onnx/vision_encoder_fp16.onnx",
    ]
    pixels = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    with torch.inference_mode():
        expected = sam.image_encoder(sam.normalise_and_pad(pixels)).numpy()
    session = InferenceSession(tmp_path / "transformersjs/onnx/vision_encoder.onnx", providers=["CPUExecutionProvider"])
    (got,) = session.run(["image_embeddings"], {"pixel_values": pixels.numpy()})
    assert np.abs(got - expected).max() < TOLERANCE * expected.std()


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("onnx", "int8"),
        ("onnx", "auto"),
        ("coreml", "palette8"),
        ("coreml", "palette6"),
        ("coreml", "palette4"),
        ("coreml", "w8a8"),
        ("tflite", "int8_dynamic"),
        ("tflite", "int8_static"),
        ("tflite", "int8_static16"),
    ],
)
def test_precisions_about_tiny_vits_layers_are_refused_before_work(
    sam: MobileSam, tmp_path: Path, target: str, precision: str
) -> None:
    told = "float32, float16" + ("" if target == "onnx" else ", int8")
    message = f"got precision {precision} of {target} for RepViT-SAM m0.9, expected {told}; the others "
    with pytest.raises(ExportError, match=message):
        export(sam, target, tmp_path / "out", precision=precision)
    assert not list(tmp_path.iterdir())


def test_other_students_are_refused_before_work_where_they_have_no_form(tmp_path: Path) -> None:
    student = MobileSam("mobilenetv4_conv_small", SIDE).eval()
    message = "got MobileSAM with mobilenetv4_conv_small for coreml and tflite, expected a TinyViT .* --target onnx$"
    with pytest.raises(ExportError, match=message):
        export(student, ["onnx", "coreml", "tflite"], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_commands_take_its_file_and_its_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(published_repvit("m0_9"), tmp_path / "repvit.pt")
    photo = str(Path(cli.__file__).parent.parent / "photos" / "coffee.png")
    out = str(tmp_path / "out")
    options = ["--checkpoint", str(tmp_path / "repvit.pt")]
    assert cli.main(["export", *options, "--image-size", str(SIDE), "--out", out, "--verify", "quick"]) == 0
    assert "RepViT-SAM m0.9" in capsys.readouterr().err
    assert cli.main(["verify", out, *options, "--quick"]) == 0
    assert cli.main(["inspect", out]) == 0
    assert "RepViT-SAM m0.9, weights repvit.pt" in capsys.readouterr().out
    assert cli.main(["segment", photo, "--bundle", out, "--point", "100,80", "--out", str(tmp_path / "m.png")]) == 0
    assert cli.main(["convert-checkpoint", str(tmp_path / "repvit.pt"), str(tmp_path / "again.safetensors")]) == 0
    assert load_mobile_sam(tmp_path / "again.safetensors", SIDE).family == "RepViT-SAM m0.9"
