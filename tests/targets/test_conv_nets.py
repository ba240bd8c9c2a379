"""ResNets, HGNetV2s and NanoSAM go through every target: folded, and with the reference's masks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mobilesam_export import cli
from mobilesam_export.bundle.predictor import load_bundle
from mobilesam_export.contract import PAD_COLOUR_8BIT, PIXEL_MEAN
from mobilesam_export.errors import ExportError
from mobilesam_export.pipeline import export
from mobilesam_export.targets import named
from mobilesam_export.targets.coreai.graphs import ConvNetEncoderCoreAI
from mobilesam_export.targets.coreml.conv_net import ConvNetEncoderCoreML
from mobilesam_export.targets.coreml.executor.structure import structure_of
from mobilesam_export.targets.coreml.parts import constants_of
from mobilesam_export.targets.executorch.channels_first import ImageEncoderBetweenTransposes
from mobilesam_export.targets.executorch.conv_net import ConvNetEncoderExecutorch
from mobilesam_export.targets.onnx.conv_net import ConvNetEncoderOnnx
from mobilesam_export.targets.tflite.conv_net import ConvNetEncoderTflite
from reference import MobileSam, load_mobile_sam, save_checkpoint
from tests.randomised import published_nano_sam, randomised_sam, randomised_student

SIDE = 128
# float32 sums in another order: 3e-6 to 1.3e-5 of the embedding's std in all graphs, and 5e-6 in the reference itself,
# held against float64; a wrong fold is off by more than 1e-2.
TOLERANCE = 5e-5
GRAPHS = {
    "onnx": ConvNetEncoderOnnx,
    "coreml": ConvNetEncoderCoreML,
    "tflite": ConvNetEncoderTflite,
    "executorch": ConvNetEncoderExecutorch,
    "executorch for Core ML and Vulkan": ImageEncoderBetweenTransposes,
    "coreai": ConvNetEncoderCoreAI,
}
CHANNELS_LAST = (ConvNetEncoderTflite, ConvNetEncoderExecutorch, ImageEncoderBetweenTransposes)
# Of each ResNet's and HGNetV2's kind: two or three convolutions a block; with and without learned scales and shifts.
BACKBONES = ["resnet18", "resnet50", "hgnetv2_b1", "hgnetv2_b4", "nanosam_resnet18", "nanosam_hgnetv2_b0"]
SLOW = pytest.mark.slow  # half a minute each, most of it the conversion of the decoder once more
EXPORTS = [
    pytest.param("resnet18", "onnx", "float32", {}, marks=SLOW),
    ("hgnetv2_b1", "onnx", "float32", {}),
    pytest.param("nanosam_resnet18", "onnx", "float16", {}, marks=SLOW),
    pytest.param("nanosam_hgnetv2_b1", "onnx", "float32", {"opset": 23}, marks=SLOW),
    ("hgnetv2_b1", "coreml", "float16", {}),
    pytest.param("nanosam_resnet18", "coreml", "float16", {}, marks=SLOW),
    # Random weights in a small frame: outlines of chance move more than those of a photo's objects.
    pytest.param("resnet18", "coreml", "int8", {"min_iou": 0.9}, marks=SLOW),
    pytest.param("nanosam_hgnetv2_b1", "coreml", "int8", {"min_iou": 0.8}, marks=SLOW),  # 0.891
    ("nanosam_hgnetv2_b1", "tflite", "float32", {"image_input": "uint8"}),
    pytest.param("resnet18", "tflite", "float16", {}, marks=SLOW),
    pytest.param("hgnetv2_b4", "tflite", "float32", {}, marks=SLOW),  # seven maps in one join
    pytest.param("nanosam_resnet18", "tflite", "int8", {}, marks=SLOW),
    ("hgnetv2_b3", "executorch", "float32", {}),
    pytest.param("nanosam_resnet18", "executorch", "float32", {}, marks=SLOW),
    ("nanosam_resnet18", "coreai", "float32", {}),
    pytest.param("hgnetv2_b1", "coreai", "float32", {}, marks=SLOW),
]


def encode(graph: nn.Module, image: Tensor) -> Tensor:
    with torch.inference_mode():
        if not isinstance(graph, CHANNELS_LAST):
            embeddings: Tensor = graph(image)
            return embeddings
        answer = graph(image.permute(0, 2, 3, 1))  # BCHW -> BHWC
        embeddings = answer["image_embeddings"] if isinstance(answer, dict) else answer
        return embeddings.permute(0, 3, 1, 2)  # BHWC -> BCHW


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_graph_equals_the_reference(backbone: str) -> None:
    sam = randomised_student(backbone, 1, SIDE)
    image = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 255
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    with torch.inference_mode():
        expected = sam.image_encoder((image - sam.pixel_mean) / sam.pixel_std)
    for target, make in GRAPHS.items():
        graph = make(sam)
        difference = (encode(graph, image) - expected).abs().max()
        assert difference < TOLERANCE * expected.std(), f"{target}: {difference / expected.std():.1e}"
        assert not [module for module in graph.modules() if isinstance(module, nn.BatchNorm2d | nn.ConvTranspose2d)]
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())


@pytest.mark.parametrize("target", ["coreml", "tflite"])
def test_pixels_of_the_8_bit_pad_colour_become_exact_padding(target: str) -> None:
    sam = randomised_student("hgnetv2_b0", 0, SIDE)
    photo = torch.randint(0, 256, (1, 3, 90, SIDE), generator=torch.Generator().manual_seed(0)).float()
    frame = torch.tensor(PAD_COLOUR_8BIT).reshape(1, 3, 1, 1).expand(1, 3, SIDE, SIDE).clone().float()
    frame[:, :, :90] = photo
    with torch.inference_mode():
        expected = sam.image_encoder(sam.normalise_and_pad(photo))
    graph = (ConvNetEncoderCoreML if target == "coreml" else ConvNetEncoderTflite)(sam, eight_bit=True)
    assert (encode(graph, frame) - expected).abs().max() < TOLERANCE * expected.std()
    exact = torch.tensor(PIXEL_MEAN).reshape(1, 3, 1, 1).expand(1, 3, SIDE, SIDE).clone()
    exact[:, :, :90] = photo
    assert (encode(GRAPHS[target](sam), exact) - expected).abs().max() < TOLERANCE * expected.std()


@pytest.mark.parametrize("backbone", ["resnet18", "nanosam_hgnetv2_b1"])
def test_every_part_that_the_core_ml_graph_names_is_there(backbone: str) -> None:
    graph = ConvNetEncoderCoreML(MobileSam(backbone, 64).eval())
    for part in (*graph.DEPTHWISE, *graph.BATCH_NORM_FOLDED):
        assert constants_of(graph, [part])
    assert ("neck.pos_embedding" in graph.DEPTHWISE) == backbone.startswith("nanosam")
    assert any(part.startswith("stages.2.blocks.1.layers.2.1") for part in graph.DEPTHWISE) == ("hgnet" in backbone)


@pytest.mark.parametrize(("backbone", "target", "precision", "options"), EXPORTS)
def test_it_is_exported_with_parity(
    tmp_path: Path, backbone: str, target: str, precision: str, options: dict[str, Any]
) -> None:
    if target in ("executorch", "coreai"):
        pytest.importorskip(named(target).packages[-1], reason=f"needs pip install 'mobilesam-export[{target}]'")
    sam = randomised_student(backbone, 1, SIDE)
    bundle = export(sam, target, tmp_path / "out", precision=precision, verify="quick", **options)
    entry = bundle.manifest.targets[target]
    assert entry.parity is not None and entry.parity["passed"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["weights"]["family"] == sam.family
    if target == "coreml":
        encoder = structure_of(tmp_path / "out" / entry.path_of("encoder"))
        norms = 0 if backbone.startswith("nanosam") else 2
        assert (encoder.transposes, encoder.reshapes, encoder.layer_norms, encoder.linears) == (0, 0, norms, 0)
    if target == "tflite":
        assert entry.notes["delegates"]["encode"]["xnnpack_partitions"] == 1
    if target == "executorch":
        calls = entry.notes["delegates"]["encoder"]
        assert (calls["partitions"], calls["outside"]) == (1, [])
    load_bundle(tmp_path / "out").set_image(torch.zeros(40, 60, 3, dtype=torch.uint8).numpy())


@pytest.mark.parametrize(
    ("target", "precision"),
    [("onnx", "int8"), ("onnx", "auto"), ("coreml", "palette6"), ("coreml", "w8a8"), ("tflite", "int8_dynamic")],
)
def test_precisions_about_tiny_vits_layers_are_refused_before_work(tmp_path: Path, target: str, precision: str) -> None:
    told = "float32, float16" + ("" if target == "onnx" else ", int8")
    message = f"got precision {precision} of {target} for NanoSAM resnet18, expected {told}; the others "
    with pytest.raises(ExportError, match=message):
        export(MobileSam("nanosam_resnet18", 64).eval(), target, tmp_path / "out", precision=precision)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backbone", ["resnet18d", "nanosam_mobilenetv4_conv_small"])
def test_other_students_are_refused_before_work_where_they_have_no_form(tmp_path: Path, backbone: str) -> None:
    student = MobileSam(backbone, 64).eval()
    message = f"got {student.family} for coreml and tflite, expected a TinyViT .* --target onnx$"
    with pytest.raises(ExportError, match=message):
        export(student, ["onnx", "coreml", "tflite"], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_commands_take_nanosams_file_and_its_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": published_nano_sam("resnet18", SIDE), "epoch": 0}, tmp_path / "nanosam.pth")
    save_checkpoint(randomised_sam(0, 64), tmp_path / "mobile_sam.pt")
    photo = str(Path(cli.__file__).parent.parent / "photos" / "coffee.png")
    out = str(tmp_path / "out")
    options = ["--checkpoint", str(tmp_path / "nanosam.pth"), "--decoder-checkpoint", str(tmp_path / "mobile_sam.pt")]
    assert cli.main(["export", *options, "--image-size", str(SIDE), "--out", out, "--verify", "quick"]) == 0
    assert "NanoSAM resnet18" in capsys.readouterr().err
    assert cli.main(["verify", out, *options, "--quick"]) == 0
    assert cli.main(["inspect", out]) == 0
    assert "NanoSAM resnet18, weights nanosam.pth with the decoder of mobile_sam.pt" in capsys.readouterr().out
    assert cli.main(["segment", photo, "--bundle", out, "--point", "100,80", "--out", str(tmp_path / "m.png")]) == 0


@pytest.mark.slow  # the one size that a file of NanoSAM's trainer is for
@pytest.mark.parametrize("backbone", ["resnet18", "hgnetv2_b1"])
def test_what_nanosams_trainer_writes_is_exported_at_1024(tmp_path: Path, backbone: str) -> None:
    torch.save({"model": published_nano_sam(backbone, 1024), "epoch": 0}, tmp_path / "nanosam.pth")
    save_checkpoint(randomised_sam(0, 64), tmp_path / "mobile_sam.pt")
    sam = load_mobile_sam(tmp_path / "nanosam.pth", decoder=tmp_path / "mobile_sam.pt")
    bundle = export(sam, ["onnx", "coreml", "tflite"], tmp_path / "out", precision="float32", verify="quick")
    for entry in bundle.manifest.targets.values():
        assert entry.parity is not None and entry.parity["passed"]
