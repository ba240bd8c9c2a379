"""The ONNX files compute what the reference computes, in every form that is offered."""

import platform
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch

from mobilesam_export.contract import Contract
from mobilesam_export.errors import ExportError
from mobilesam_export.targets import named
from mobilesam_export.targets.onnx.opset_17 import to_opset_17
from mobilesam_export.targets.onnx.ports import read_written
from mobilesam_export.targets.onnx.runtime import OnnxRuntime, session
from mobilesam_export.targets.onnx.write import write
from mobilesam_export.version import __version__
from reference import Predictor
from reference.checkpoint import stand_in_mobile_sam
from reference.mobile_sam import MobileSam
from reference.stand_in import stand_in_tensor
from reference.transforms import resized_size, to_model_frame, upscale_logits
from tests.ports import assert_meanings_are_there, canonical, described, ports
from tests.randomised import randomised_sam
from tests.reference import golden
from tests.targets.onnx.tensorrt_rules import against_the_rules

SIZE = 224
FLOAT32 = 2e-5  # of a std: rounding in another order, with the runtime's own fusions
HALF_WEIGHTS = 2e-2  # float16 keeps 11 bits: 5e-4 a weight, through some 60 layers
INT8_ENCODER = 0.5  # random weights are the worst case of 8-bit activations; parity on photos gates the recipe


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=SIZE)


@pytest.fixture(scope="module")
def files(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Encoder and decoder in the default form."""
    return write(sam, tmp_path_factory.mktemp("onnx"), metadata={"contract_version": "1"})


def errors(sam: MobileSam, files: list[Path]) -> tuple[float, float, float]:
    """Largest embedding, logit and IoU difference to the reference, over the reference's std."""
    runtime = OnnxRuntime(*files, threads=1)
    rng = np.random.default_rng(0)
    image = (rng.random((1, 3, SIZE, SIZE)) * 255).astype(np.float32)
    coords = rng.random((2, 3, 2)).astype(np.float32) * SIZE
    labels = np.array([[1, 0, -1], [1, 2, 3]], np.float32)
    with torch.no_grad():
        embedding = sam.image_encoder(sam.normalise_and_pad(torch.from_numpy(image))).numpy()
        points = (torch.from_numpy(coords), torch.from_numpy(labels))
        first = sam.predict_masks(torch.from_numpy(embedding), (points[0][:1, :2], points[1][:1, :2]))
        box = points[0][1:, 1:].reshape(1, 4)
        second = sam.predict_masks(torch.from_numpy(embedding), (points[0][1:, :1], points[1][1:, :1]), box)
    coords[0, 2] = 0
    logits, iou = runtime.decode(embedding, coords, labels)
    expected_logits, expected_iou = (torch.cat(pair).numpy() for pair in zip(first, second, strict=True))
    encoded = runtime.encode(image)
    return (
        float(np.abs(encoded - embedding).max() / embedding.std()),
        float(np.abs(logits - expected_logits).max() / expected_logits.std()),
        float(np.abs(iou - expected_iou).max() / expected_iou.std()),
    )


def form(files: list[Path]) -> tuple[int, set[str]]:
    """Opset and operators of both files."""
    models = [onnx.load(file) for file in files]
    return models[0].opset_import[0].version, {node.op_type for model in models for node in model.graph.node}


def parser_objections(files: list[Path]) -> set[str]:
    """Of TensorRT's parser, against any of the files."""
    return {objection for file in files for objection in against_the_rules(onnx.load(file))}


def check_ports(files: list[Path], contract: Contract, official: bool = False) -> None:
    """The manifest says what ONNX Runtime says of the files, in the contract's words; viewers find a meaning each."""
    said = described("onnx", files, contract.image_size)
    assert said["max_points"] == contract.max_points
    assert_meanings_are_there(said)
    for graph, file in zip(("encoder", "decoder"), files, strict=True):
        opened, model = session(file, 1), onnx.load(file)
        for side, entries in (("inputs", opened.get_inputs()), ("outputs", opened.get_outputs())):
            found = {entry.name: (tuple(entry.shape), {"tensor(float)": "float32"}[entry.type]) for entry in entries}
            assert list(ports(said, graph, side).items()) == list(found.items())
            expected = dict(canonical(contract, graph, side))
            if official and graph == "decoder":
                rows = expected["low_res_masks"][0][:2] if side == "outputs" else ()
                expected |= (
                    {"orig_im_size": ((2,), "float32")}
                    if side == "inputs"
                    else {"masks": ((*rows, "height", "width"), "float32")}
                )
            assert found == expected
        values = [*model.graph.input, *model.graph.output]
        assert all(value.doc_string for value in values)
        assert model.doc_string.startswith("MobileSAM's") and not model.graph.doc_string


def test_the_default_files_equal_the_reference(sam: MobileSam, files: list[Path]) -> None:
    assert [file.name for file in files] == ["mobile_sam_encoder.onnx", "mobile_sam_decoder.onnx"]
    assert max(errors(sam, files)) < FLOAT32
    check_ports(files, Contract(SIZE))
    assert read_written(*files).metadata == {"contract_version": "1"}
    opset, operators = form(files)
    assert opset == 17 and not {"Gelu", "Attention"} & operators
    assert {onnx.load(file).ir_version for file in files} == {8}  # ONNX Runtime 1.16 and others refuse newer ones
    assert parser_objections(files) == set()


def test_files_with_real_operators_equal_the_reference(sam: MobileSam, tmp_path: Path) -> None:
    files = write(sam, tmp_path, opset=23)
    assert max(errors(sam, files)) < FLOAT32
    opset, operators = form(files)
    assert opset == 23 and {"Gelu", "Attention", "LayerNormalization"} <= operators
    assert {"opset 23", "Attention is not taken"} <= parser_objections(files)


def test_files_with_fixed_slots_equal_the_reference(sam: MobileSam, tmp_path: Path) -> None:
    files = write(sam, tmp_path, max_points=5)
    assert max(errors(sam, files)) < FLOAT32
    check_ports(files, Contract(SIZE, 5))
    # What OpenCV 4 lacks, and a fixed number of slots does not need.
    assert not {"GatherND", "Shape", "Range", "Where"} & {node.op_type for node in onnx.load(files[1]).graph.node}
    assert parser_objections(files) == set()


def test_older_runtimes_find_the_bias_of_every_layer_norm(files: list[Path]) -> None:
    for file, count in zip(files, (22, 10), strict=True):  # ONNX Runtime 1.16 to 1.18 read past the end without it
        norms = [node for node in onnx.load(file).graph.node if node.op_type == "LayerNormalization"]
        assert [len(node.input) for node in norms] == [3] * count


def optimised(file: Path, folder: Path, level: onnxruntime.GraphOptimizationLevel) -> list[str]:
    """The operators that ONNX Runtime makes of a file's."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3  # that such a file is for this machine only
    onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node]


def test_the_runtime_finds_every_gelu_again(files: list[Path], tmp_path: Path) -> None:
    for file, count in zip(files, (23, 4), strict=True):
        assert [node.op_type for node in onnx.load(file).graph.node].count("Erf") == count
        operators = optimised(file, tmp_path, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED)
        assert (operators.count("Erf"), operators.count("Gelu")) == (0, count)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the blocked layout is for x86-64 only")
def test_the_runtime_needs_no_pass_for_sums_and_transposes_of_the_encoder(files: list[Path], tmp_path: Path) -> None:
    operators = optimised(files[0], tmp_path, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    assert (
        operators.count("Add") == 10
    )  # of the position biases of ten attentions; convolutions take residual sums along
    assert operators.count("Transpose") == 1  # of the embedding; the others are changes of layout at once
    assert operators.count("ReorderInput") + operators.count("ReorderOutput") == 43


def test_a_gelu_by_tanh_is_not_taken_for_the_exact_one() -> None:
    text = """
        <ir_version: 9, opset_import: ["" : 20]>
        graph (float[2] x) => (float[2] y) { y = Gelu <approximate = "tanh"> (x) }
    """
    with pytest.raises(ExportError, match="tanh is not the reference's"):
        to_opset_17(onnx.parser.parse_model(text))


def test_reduced_precision_files_stay_close_and_get_smaller(sam: MobileSam, files: list[Path], tmp_path: Path) -> None:
    sizes = {"float32": files[0].stat().st_size}
    for precision, tolerance in (("float16", HALF_WEIGHTS), ("int8", INT8_ENCODER)):
        (tmp_path / precision).mkdir()
        reduced = write(sam, tmp_path / precision, precision=precision)
        sizes[precision] = reduced[0].stat().st_size
        assert FLOAT32 < max(errors(sam, reduced)) < tolerance, precision
        assert described("onnx", reduced, SIZE) == described("onnx", files, SIZE)
        operators_of_8_bits = {"MatMulInteger is not taken", "DynamicQuantizeLinear is not taken"}
        assert parser_objections(reduced) == (operators_of_8_bits if precision == "int8" else set()), precision
    assert sizes["float16"] < 0.55 * sizes["float32"]
    assert sizes["int8"] < 0.6 * sizes["float32"]
    if platform.machine() in ("x86_64", "AMD64"):  # where the runtime has its blocked layout
        operators = optimised(
            tmp_path / "int8" / files[0].name, tmp_path, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        )
        assert operators.count("Transpose") == 1  # of the embedding; blocks change between map and tokens but twice
        assert operators.count("ReorderInput") + operators.count("ReorderOutput") == 27


def test_the_official_contract_returns_the_photo_sized_logits(sam: MobileSam, tmp_path: Path) -> None:
    _, decoder = write(sam, tmp_path, official_decoder=True)
    assert parser_objections([decoder]) == set()
    upscaling = session(decoder, 1)
    names = ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"]
    assert [entry.name for entry in upscaling.get_inputs()] == names
    assert [entry.name for entry in upscaling.get_outputs()] == ["masks", "iou_predictions", "low_res_masks"]
    rng = np.random.default_rng(1)
    embedding = rng.standard_normal((1, 256, SIZE // 16, SIZE // 16)).astype(np.float32)
    for size in ((75, 224), (301, 200), (1, 9)):
        feeds = {
            "image_embeddings": embedding,
            "point_coords": np.array([[[100, 30], [0, 0]]], np.float32),
            "point_labels": np.array([[1, -1]], np.float32),
            "mask_input": np.zeros((1, 1, SIZE // 4, SIZE // 4), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array(size, np.float32),
        }
        masks, _, low_res = upscaling.run(None, feeds)
        assert masks.shape == (1, 4, *size) and min(resized_size(size, SIZE)) > 0
        expected = upscale_logits(torch.from_numpy(low_res), size, SIZE).numpy()
        # Two float32 bilinear steps, another rounding order.
        assert np.abs(masks - expected).max() < 1e-4 * expected.std()


def test_the_official_contract_gives_the_official_wrappers_numbers(tmp_path: Path) -> None:
    predictor = Predictor(stand_in_mobile_sam())
    decoders = {}
    for name, single in (("onnx_contract_all", False), ("onnx_contract_single", True)):
        files = write(predictor.sam, tmp_path, official_decoder=True, single_mask=single)
        check_ports(files, Contract(1024, None, single), official=True)
        decoders[name] = session(files[1], 1)
    for image in ("astronaut", "coffee"):
        predictor.set_image(golden.photo(image))
        assert predictor.original_size is not None
        height, width = predictor.original_size
        centre = to_model_frame(np.array([width / 2, height / 2]), (height, width), 1024)
        feeds = {
            "image_embeddings": predictor.image_embeddings,
            "point_coords": np.array([[centre, [0, 0]]], np.float32),
            "point_labels": np.array([[1, -1]], np.float32),
            "mask_input": np.zeros((1, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array([height, width], np.float32),
        }
        for name, decoder in decoders.items():
            masks, iou, low_res = decoder.run(None, feeds)
            expected = golden.rows(f"{image}/{name}")
            overlaps = [golden.mask_iou(got > 0, want) for got, want in zip(masks[0], expected.masks, strict=True)]
            assert min(overlaps) >= 0.9995
            # The recorded logits are float16, whose step at their size is up to 4e-3.
            assert np.abs(low_res[0, :, ::2, ::2] - expected.every_2nd_logit).max() < 5e-3
            assert np.abs(iou[0] / expected.iou_predictions - 1).max() < 1e-4


def test_a_mask_prompt_may_come_without_points(sam: MobileSam, files: list[Path]) -> None:
    runtime = OnnxRuntime(*files, threads=1)
    generator = torch.Generator().manual_seed(5)
    embedding = torch.randn(1, 256, SIZE // 16, SIZE // 16, generator=generator)
    mask = torch.randn(1, 1, SIZE // 4, SIZE // 4, generator=generator)
    with torch.no_grad():
        expected = sam.predict_masks(embedding, mask_input=mask)[0].numpy()
    absent = (np.zeros((1, 1, 2), np.float32), np.full((1, 1), -2, np.float32))
    logits, _ = runtime.decode(embedding.numpy(), *absent, mask.numpy())
    assert np.abs(logits - expected).max() < FLOAT32 * expected.std()


def test_prompts_are_decoded_one_after_the_other_and_a_file_takes_them_at_once(
    sam: MobileSam, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = OnnxRuntime(*files)
    session, asked = runtime.decoder, []

    class Counting:
        def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            asked.append({name: len(value) for name, value in feeds.items()})
            results: list[np.ndarray] = session.run(names, feeds)
            return results

    grid = sam.image_size // 16
    embedding = np.random.default_rng(5).normal(0, 1, (1, 256, grid, grid)).astype(np.float32)
    coords, labels = np.random.default_rng(6).uniform(0, sam.image_size, (3, 2, 2)), np.ones((3, 2))
    masks = np.random.default_rng(7).normal(0, 5, (3, 1, 4 * grid, 4 * grid)).astype(np.float32)
    each = [runtime.decode(embedding, *(value[i : i + 1] for value in (coords, labels, masks))) for i in range(3)]
    monkeypatch.setattr(runtime, "decoder", Counting())
    logits, iou = runtime.decode(embedding, coords, labels, masks)
    assert [feeds["point_coords"] for feeds in asked] == [1, 1, 1] == [feeds["mask_input"] for feeds in asked]
    np.testing.assert_array_equal(logits, np.concatenate([answer[0] for answer in each]))
    np.testing.assert_array_equal(iou, np.concatenate([answer[1] for answer in each]))
    feeds = {"image_embeddings": embedding, "point_coords": coords, "point_labels": labels, "mask_input": masks}
    feeds = {name: value.astype(np.float32) for name, value in (feeds | {"has_mask_input": np.ones(1)}).items()}
    for at_once, separately in zip(
        session.run(["low_res_masks", "iou_predictions"], feeds), (logits, iou), strict=True
    ):
        np.testing.assert_allclose(at_once, separately, rtol=0, atol=FLOAT32 * separately.std())


def test_metadata_is_in_the_files_and_no_folder_of_the_exporting_machine(files: list[Path]) -> None:
    for file in files:
        model = onnx.load(file)
        assert {entry.key: entry.value for entry in model.metadata_props} == {"contract_version": "1"}
        assert (model.producer_name, model.producer_version) == ("mobilesam-export", __version__)
        assert model.graph.input[0].doc_string
        assert b".py" not in file.read_bytes()


def test_more_points_than_a_fixed_file_holds_is_said_in_one_line(sam: MobileSam, tmp_path: Path) -> None:
    runtime = OnnxRuntime(*write(sam, tmp_path, max_points=2), threads=1)
    assert runtime.max_points == 2
    embedding = np.zeros((1, 256, SIZE // 16, SIZE // 16), np.float32)
    with pytest.raises(ExportError, match=r"got 3 point slots.*holds 2"):
        runtime.decode(embedding, np.zeros((1, 3, 2), np.float32), np.zeros((1, 3), np.float32))


def test_what_an_npu_would_refuse_is_noted(files: list[Path]) -> None:
    npu = named("onnx").notes(files)["npu"]
    assert npu.keys() == {"encoder", "decoder"}
    assert npu["encoder"]["max_rank"] == 4 and npu["encoder"]["softmax_widths"] == {"49": 4, "196": 6}
    assert "shapes vary, an NPU takes fixed ones" in npu["decoder"]["problems"]


def test_what_is_not_offered_is_refused(tmp_path: Path) -> None:
    sam = stand_in_mobile_sam(SIZE)
    with pytest.raises(ExportError, match="opset 12, expected 17 or 23"):
        write(sam, tmp_path, opset=12)
    with pytest.raises(ExportError, match="'fp8' for ONNX, expected one of float32"):
        write(sam, tmp_path, precision="fp8")
    with pytest.raises(ExportError, match="train mode"):
        write(sam.train(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_truncated_file_is_said_in_one_line(files: list[Path], tmp_path: Path) -> None:
    truncated = tmp_path / files[0].name
    truncated.write_bytes(files[0].read_bytes()[:1000])
    with pytest.raises(ExportError, match="cannot be loaded by ONNX Runtime") as caught:
        OnnxRuntime(truncated, files[1])
    assert "\n" not in str(caught.value)


def test_another_student_is_exported_with_its_batch_norms_folded(tmp_path: Path) -> None:
    sam = MobileSam("mobilenetv4_conv_small", SIZE).eval()
    with torch.no_grad():
        for name, tensor in sam.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(stand_in_tensor(name, tuple(tensor.shape)))
    files = write(sam, tmp_path)
    assert max(errors(sam, files)) < FLOAT32
    assert not {node.op_type for node in onnx.load(files[0]).graph.node} & {"BatchNormalization"}
