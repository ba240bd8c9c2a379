"""What was written: parity, names, metadata, delegates, sizes; and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor

from mobilesam_export.contract import Contract
from mobilesam_export.errors import ExportError
from mobilesam_export.targets.tflite import write as to_tflite
from mobilesam_export.targets.tflite.delegates import inspect_delegates
from mobilesam_export.targets.tflite.flatbuffer import Subgraph, get_metadata, read_model, write_model
from mobilesam_export.targets.tflite.ports import read_written
from mobilesam_export.targets.tflite.runtime import TFLiteRuntime
from reference.mobile_sam import MobileSam
from tests.ports import assert_meanings_are_there, canonical, described, ports
from tests.targets.prompts import every_kind
from tests.targets.tflite.conftest import IMAGE_SIZE

KINDS = ("point", "points", "box", "box and points", "mask", "refinement")
FLOAT32 = 5e-5  # XNNPACK sums in another order than PyTorch, over the standard deviation
FLOAT16 = 0.02  # weights rounded to 11 bits, over the standard deviation


def relative_error(got: np.ndarray, expected: Tensor) -> float:
    """Largest difference over the expected standard deviation."""
    return float(np.abs(got - expected.numpy()).max() / expected.std())


def check(runtime: TFLiteRuntime, sam: MobileSam, embeddings: Tensor, kind: str, tolerance: float) -> None:
    """Decode one prompt and compare with the reference."""
    prompt = every_kind(sam.image_size)[kind]
    with torch.no_grad():
        masks, quality = sam.predict_masks(embeddings, prompt.points, prompt.box, prompt.mask)
    coords, labels = (tensor.numpy() for tensor in prompt.slots())
    mask = None if prompt.mask is None else prompt.mask.numpy()
    low_res_masks, iou_predictions = runtime.decode(embeddings.numpy(), coords, labels, mask)
    assert relative_error(low_res_masks, masks) < tolerance
    assert relative_error(iou_predictions, quality) < tolerance


def test_encoder_file_equals_the_reference(runtime: TFLiteRuntime, image: Tensor, embeddings: Tensor) -> None:
    assert relative_error(runtime.encode(image.numpy()), embeddings) < FLOAT32


@pytest.mark.parametrize("kind", KINDS)
def test_decoder_file_equals_the_reference(
    kind: str, runtime: TFLiteRuntime, sam: MobileSam, embeddings: Tensor
) -> None:
    check(runtime, sam, embeddings, kind, FLOAT32)


def test_compiled_model_answers_like_the_interpreter(
    float32_files: list[Path], runtime: TFLiteRuntime, sam: MobileSam, image: Tensor, embeddings: Tensor
) -> None:
    with TFLiteRuntime(*float32_files, threads=1, engine="compiled") as compiled:
        np.testing.assert_allclose(compiled.encode(image.numpy()), runtime.encode(image.numpy()), atol=1e-5)
        check(compiled, sam, embeddings, "refinement", FLOAT32)


def test_float16_files_are_close_and_half_the_size(
    float16_files: list[Path], float32_files: list[Path], sam: MobileSam, image: Tensor, embeddings: Tensor
) -> None:
    with TFLiteRuntime(*float16_files, threads=1) as runtime:
        assert relative_error(runtime.encode(image.numpy()), embeddings) < FLOAT16
        check(runtime, sam, embeddings, "box and points", FLOAT16)
    for half, whole in zip(float16_files, float32_files, strict=True):
        assert half.stat().st_size < 0.52 * whole.stat().st_size
    assert sum(path.stat().st_size for path in float16_files) < 22e6


def test_a_batch_of_prompts_is_decoded_one_by_one(runtime: TFLiteRuntime, sam: MobileSam, embeddings: Tensor) -> None:
    coords = np.array([[[10, 20]], [[70, 60]]], np.float32)
    labels = np.ones((2, 1), np.float32)
    both = runtime.decode(embeddings.numpy(), coords, labels)
    for i in range(2):
        one = runtime.decode(embeddings.numpy(), coords[i : i + 1], labels[i : i + 1])
        np.testing.assert_array_equal(both[0][i : i + 1], one[0])
        np.testing.assert_array_equal(both[1][i : i + 1], one[1])


def test_signatures_have_the_contracts_names(float32_files: list[Path]) -> None:
    names = {}
    for path in float32_files:
        for signature in read_model(path).signatureDefs:
            ports = [{port.name.decode() for port in ports} for ports in (signature.inputs, signature.outputs)]
            names[signature.signatureKey.decode()] = ports
    assert names["encode"] == [{"image"}, {"image_embeddings"}]
    inputs = {"image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input"}
    assert names["decode"] == [inputs, {"low_res_masks", "iou_predictions"}]


def check_ports(files: list[Path], image: str, max_points: int) -> None:
    """The manifest says what LiteRT says of the files: NHWC image and embedding, and the image's dtype."""
    said = described("tflite", files, IMAGE_SIZE)
    assert said["max_points"] == max_points
    assert_meanings_are_there(said)
    for graph, key, path in (("encoder", "encode", files[0]), ("decoder", "decode", files[-1])):
        signature = Interpreter(model_path=str(path)).get_signature_runner(key)
        for side, details in (("inputs", signature.get_input_details()), ("outputs", signature.get_output_details())):
            found = {name: (tuple(d["shape"].tolist()), np.dtype(d["dtype"]).name) for name, d in details.items()}
            assert ports(said, graph, side) == found
            expected = dict(canonical(Contract(IMAGE_SIZE, max_points), graph, side))
            for name, dtype in (("image", image), ("image_embeddings", "float32")):
                if name in expected:
                    batch, channels, height, width = expected[name][0]
                    expected[name] = (batch, height, width, channels), dtype
            assert found == expected


def test_the_manifest_says_the_ports_of_the_files(
    float32_files: list[Path], float16_files: list[Path], combined_file: Path
) -> None:
    check_ports(float32_files, "float32", 8)
    check_ports(float16_files, "float32", 8)
    check_ports([combined_file], "uint8", 3)
    assert read_written(combined_file, combined_file).metadata["precision"] == "float32"


def test_files_of_other_ports_are_one_line(float32_files: list[Path], tmp_path: Path) -> None:
    model = read_model(float32_files[1])
    for port in model.signatureDefs[0].inputs:
        port.name = b"other_" + port.name
    foreign = write_model(model, tmp_path / float32_files[1].name)
    encoder = tmp_path / float32_files[0].name
    encoder.write_bytes(float32_files[0].read_bytes())
    with pytest.raises(ExportError, match="are not as this program writes them") as raised:
        described("tflite", [encoder, foreign], IMAGE_SIZE)
    assert "\n" not in str(raised.value)


def test_metadata_is_in_the_file(float32_files: list[Path]) -> None:
    for path in float32_files:
        assert get_metadata(read_model(path)).items() >= {"contract_version": "1", "pad_colour": "mean"}.items()


def test_delegates_take_the_whole_graph(float32_files: list[Path], float16_files: list[Path]) -> None:
    for path in (*float32_files, *float16_files):
        (report,) = inspect_delegates(path)
        assert report.problems() == []
        assert (report.max_rank, report.xnnpack_partitions, report.outside_xnnpack) == (4, 1, ())


def test_an_npu_has_nothing_to_refuse(float32_files: list[Path]) -> None:
    npu = to_tflite.notes(float32_files)["npu"]
    assert {graph: report["problems"] for graph, report in npu.items()} == {"encode": [], "decode": []}
    assert npu["encode"]["softmax_widths"] == {"49": 4, "196": 6}


def test_a_wrong_weight_in_the_file_shows(
    float32_files: list[Path], sam: MobileSam, image: Tensor, embeddings: Tensor, tmp_path: Path
) -> None:
    model = read_model(float32_files[0])
    graph = Subgraph(model, 0)
    convolution = [operator for operator in graph.graph.operators if graph.name(operator) == "CONV_2D"][20]
    weight = int(convolution.inputs[1])
    values = graph.constant(weight)
    assert values is not None
    changed = values.copy()
    changed.flat[0] += 1
    convolution.inputs = np.array(
        [convolution.inputs[0], graph.add_constant("w", changed), convolution.inputs[2]], np.int32
    )
    broken = write_model(model, tmp_path / "broken.tflite")
    with TFLiteRuntime(broken, float32_files[1], threads=1) as runtime:
        assert relative_error(runtime.encode(image.numpy()), embeddings) > 10 * FLOAT32


def test_too_many_points_are_refused(runtime: TFLiteRuntime, embeddings: Tensor) -> None:
    with pytest.raises(ExportError, match=r"got 9 point slots .* holds 8"):
        runtime.decode(embeddings.numpy(), np.zeros((1, 9, 2), np.float32), np.ones((1, 9), np.float32))


def test_an_image_of_another_size_is_refused(runtime: TFLiteRuntime) -> None:
    with pytest.raises(ExportError, match=r"expected \(1, 3, 96, 96\)"):
        runtime.encode(np.zeros((1, 3, 64, 64), np.float32))


@pytest.mark.parametrize("engine", ["interpreter", "compiled"])
@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_one_line(engine: str, kept: float, float32_files: list[Path], tmp_path: Path) -> None:
    content = float32_files[1].read_bytes()
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    with pytest.raises(ExportError, match="export it again") as caught:
        TFLiteRuntime(float32_files[0], cut, engine=engine)  # type: ignore[arg-type]  # of a wrong type on purpose
    assert "\n" not in str(caught.value)


def test_missing_and_swapped_files_are_named(float32_files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="there is no"):
        TFLiteRuntime(tmp_path / "no.tflite", float32_files[1])
    with pytest.raises(ExportError, match="has the signatures decode, expected encode"):
        TFLiteRuntime(float32_files[1], float32_files[0])


@pytest.mark.parametrize("options", [{"precision": "int3"}, {"image_input": "int8"}, {"max_points": 0}])
def test_unknown_options_are_refused_before_any_work(
    options: dict[str, object], sam: MobileSam, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"got .* expected"):
        to_tflite.write(sam, tmp_path, **options)  # type: ignore[arg-type]  # a dict of several types
    assert list(tmp_path.iterdir()) == []


def test_a_missing_converter_is_one_line(sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "litert_torch", None)
    with pytest.raises(ExportError, match="wheels for Linux x86-64 and macOS arm64") as caught:
        to_tflite.write(sam, tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_converter_fails(
    sam: MobileSam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of ideas")

    monkeypatch.setattr(to_tflite, "convert", fail)
    with pytest.raises(RuntimeError, match="out of ideas"):
        to_tflite.write(sam, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_combined_file_with_8_bit_input_holds_both_signatures(
    combined_file: Path, sam: MobileSam, image: Tensor, embeddings: Tensor
) -> None:
    path = combined_file
    for report in inspect_delegates(path):
        assert report.problems() == []
    with TFLiteRuntime(path, path, threads=1) as runtime, torch.no_grad():
        assert runtime.max_points == 3
        rounded = image.round()
        expected = sam.image_encoder(sam.normalise_and_pad(rounded))
        assert relative_error(runtime.encode(rounded.numpy()), expected) < FLOAT32
        check(runtime, sam, embeddings, "box", FLOAT32)
