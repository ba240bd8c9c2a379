"""All layouts name the parts of SAM as SAM does, and none matches a name that a converter made up."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import mobilesam_export.targets
from mobilesam_export.rewrites.folded_decoder import MASKED
from mobilesam_export.rewrites.plain import PlainPromptDecoder
from mobilesam_export.targets.coreai.graphs import ImageEncoderCoreAI, PromptDecoderCoreAI
from mobilesam_export.targets.coreml.decoder import PromptDecoderCoreML
from mobilesam_export.targets.coreml.encoder import ImageEncoderCoreML
from mobilesam_export.targets.coreml.parts import constant_name, constants_of
from mobilesam_export.targets.executorch.decoder import PromptDecoderExecutorch
from mobilesam_export.targets.executorch.encoder import ImageEncoderExecutorch
from mobilesam_export.targets.onnx.decoder import PromptDecoderOnnx
from mobilesam_export.targets.onnx.encoder import ImageEncoderOnnx
from mobilesam_export.targets.tflite.decoder import PromptDecoderTflite
from mobilesam_export.targets.tflite.encoder import ImageEncoderTflite
from reference.mobile_sam import MobileSam
from tests.randomised import randomised_sam

DECODERS = {
    "onnx": PromptDecoderOnnx,
    "coreml": PromptDecoderCoreML,
    "tflite": PromptDecoderTflite,
    "executorch": PromptDecoderExecutorch,
    "coreai": PromptDecoderCoreAI,
}
ENCODERS = {
    "onnx": ImageEncoderOnnx,
    "coreml": ImageEncoderCoreML,
    "tflite": ImageEncoderTflite,
    "executorch": ImageEncoderExecutorch,
    "coreai": ImageEncoderCoreAI,
}
CHANNELS_LAST = (PromptDecoderTflite, PromptDecoderExecutorch)
# What a layout adds to SAM's own names.
OURS = {"point_embedding", "image_pe", "absent"}


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=64)


def parts(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()}


@pytest.mark.parametrize("target", DECODERS)
def test_a_decoders_parts_have_sams_names(target: str, sam: MobileSam) -> None:
    decoder, transformer = DECODERS[target](sam), sam.mask_decoder.transformer
    expected = parts(sam.mask_decoder) | parts(transformer) | {"mask_downscaling"}
    expected -= {"transformer", "iou_token", "mask_tokens"}  # its parts stand in its place; the tokens are one buffer
    assert parts(decoder) - OURS == expected
    for block, theirs in zip(decoder.get_submodule("layers").children(), transformer.layers, strict=True):
        assert parts(block) == parts(theirs)
        self_attn = block.get_submodule("self_attn")
        assert parts(self_attn) == {"q_proj", "k_proj", "v_proj", "out_proj"}


@pytest.mark.parametrize("decoder", [*DECODERS.values(), PlainPromptDecoder])
def test_a_mask_flag_of_zero_or_less_means_none_in_every_layout(decoder: type[nn.Module], sam: MobileSam) -> None:
    graph = decoder(sam)
    generator = torch.Generator().manual_seed(0)
    embeddings, mask = (torch.randn(shape, generator=generator) for shape in ((1, 256, 4, 4), (1, 1, 16, 16)))
    embeddings = embeddings.permute(0, 2, 3, 1) if decoder in CHANNELS_LAST else embeddings  # BCHW -> BHWC
    points, labels = torch.tensor([[[20.0, 30.0], [0.0, 0.0]]]), torch.tensor([[1.0, -1.0]])
    with torch.no_grad():
        answers = [graph(embeddings, points, labels, mask, torch.tensor([flag])) for flag in (0.0, -1.0, 1.0)]
    named = isinstance(answers[0], dict)
    without, minus, given = (answer["low_res_masks"] if named else answer[0] for answer in answers)
    assert torch.equal(minus, without)  # osam says -1
    assert not torch.allclose(given, without, atol=1e-3)


def test_absent_slots_are_masked_by_one_constant_in_every_layout() -> None:
    for dtype in (torch.float16, torch.float32):
        masked = torch.tensor(MASKED, dtype=dtype)
        assert masked == MASKED
        assert masked.exp() == 0
    folder = Path(mobilesam_export.targets.__file__).parent
    for path in folder.rglob("*.py"):
        numbers = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert -MASKED not in numbers, f"{path.name} has its own constant; take MASKED"


@pytest.mark.parametrize("target", DECODERS)
def test_making_a_graph_leaves_the_reference_alone(target: str, sam: MobileSam) -> None:
    sam.requires_grad_(True)
    before = {name: value.clone() for name, value in sam.state_dict().items()}
    for graph in (DECODERS[target](sam), ENCODERS[target](sam)):
        for parameter in graph.parameters():
            parameter.data.zero_()
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())
    assert all(parameter.requires_grad for parameter in sam.parameters())


def named_parts(graph: type[nn.Module]) -> Iterator[tuple[str, ...]]:
    """The class attributes of a graph that name parts of it."""
    yield from (value for name, value in vars(graph).items() if name.isupper())


@pytest.mark.parametrize(("graph", "count"), [(ImageEncoderCoreML, 4), (PromptDecoderCoreML, 2)])
def test_every_part_that_a_core_ml_graph_names_is_there(graph: type[nn.Module], count: int, sam: MobileSam) -> None:
    every = list(named_parts(graph))
    assert len(every) == count
    for named in every:
        for part in named:
            assert constants_of(graph(sam), [part])
    with pytest.raises(ValueError, match="has no part head; its class attributes name others"):
        constants_of(graph(sam), ["head"])


def test_constants_have_the_converters_names_whatever_their_width(sam: MobileSam) -> None:
    graph = PromptDecoderCoreML(sam)
    names = constants_of(graph, ["layers.*.mlp", "image_pe.row_sines"])
    mlp = {f"layers_{i}_mlp_{j}_{kind}" for i in (0, 1) for j in (0, 2) for kind in ("weight", "bias")}
    assert names == mlp | {"image_pe_row_sines"}
    assert constant_name("layers.0.mlp.0.weight") == "layers_0_mlp_0_weight"
    assert constant_name("layers_0_mlp_0_weight_to_fp16") == "layers_0_mlp_0_weight"


def test_no_recipe_of_core_ml_imports_regular_expressions() -> None:
    for path in (Path(mobilesam_export.targets.__file__).parent / "coreml").rglob("*.py"):
        imported = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert imported.isdisjoint({"re", "fnmatch"}), path.name
