"""The quantisation recipes: sizes, delegates, losses, and what must stay float."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from mobilesam_export.errors import ExportError
from mobilesam_export.jobs import plan
from mobilesam_export.targets.tflite.channels_last import ConvNhwc
from mobilesam_export.targets.tflite.delegates import inspect_delegates
from mobilesam_export.targets.tflite.encoder import ImageEncoderTflite
from mobilesam_export.targets.tflite.flatbuffer import Subgraph, read_model
from mobilesam_export.targets.tflite.layers import layer_of
from mobilesam_export.targets.tflite.precision import calibration_samples, outputs_of, quantise, sensitivity
from mobilesam_export.targets.tflite.recipes import RECIPES
from mobilesam_export.targets.tflite.runtime import TFLiteRuntime
from mobilesam_export.targets.tflite.write import compress
from reference.mobile_sam import MobileSam
from tests.targets.tflite.conftest import IMAGE_SIZE

# Least cosine of the embedding on random weights and noise; a broken scale or a swapped axis falls below 0.9.
LEAST_COSINE = {"int8": 0.9995, "int8_dynamic": 0.999, "int8_static": 0.998}


def quantised(path: Path, folder: Path, name: str, signature: str, image: Tensor | None = None) -> Path:
    """The passes of ``write`` without converting again, calibrated on ``image`` or a bundled photo."""
    samples = calibration_samples(IMAGE_SIZE)[:1]
    if image is not None:
        samples = [{"image": image.permute(0, 2, 3, 1).numpy()}]
    target = folder / path.name
    shutil.copyfile(path, target)
    compress(target, RECIPES[name], signature, samples)
    return target


@pytest.mark.parametrize("name", LEAST_COSINE)
def test_quantised_encoder_is_a_quarter_of_the_size_and_close(
    name: str, float32_files: list[Path], image: Tensor, embeddings: Tensor, tmp_path: Path
) -> None:
    encoder = quantised(float32_files[0], tmp_path, name, "encode", image)
    assert encoder.stat().st_size < 0.30 * float32_files[0].stat().st_size
    (report,) = inspect_delegates(encoder)
    assert report.problems() == []
    with TFLiteRuntime(encoder, float32_files[1], threads=1) as runtime:
        got = runtime.encode(image.numpy()).ravel().astype(np.float64)
    expected = embeddings.numpy().ravel().astype(np.float64)
    assert got @ expected / np.sqrt((got @ got) * (expected @ expected)) > LEAST_COSINE[name]


def test_decoder_keeps_float16_weights_and_its_fourier_frequencies_float32(
    float32_files: list[Path], float16_files: list[Path], sam: MobileSam, tmp_path: Path
) -> None:
    decoder = quantised(float32_files[1], tmp_path, "int8", "decode")
    assert decoder.read_bytes() == float16_files[1].read_bytes()
    frequencies = sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    assert isinstance(frequencies, Tensor)
    graph = Subgraph(read_model(decoder), 0)
    constants = [graph.constant(tensor) for tensor in range(len(graph.graph.tensors))]
    matching = [values for values in constants if values is not None and values.shape == (128, 2)]
    assert len(matching) == 1
    assert matching[0].dtype == np.float32  # the converter moves the division by the image size into them
    np.testing.assert_allclose(matching[0], 2 * frequencies.numpy().T / IMAGE_SIZE, rtol=1e-6)


def test_a_static_recipe_without_photos_is_refused(float32_files: list[Path]) -> None:
    before = float32_files[0].read_bytes()
    with pytest.raises(ExportError, match="without calibration photos"):
        quantise(float32_files[0], RECIPES["int8_static"], [])
    assert float32_files[0].read_bytes() == before


def test_a_recipe_for_a_combined_file_is_refused_before_any_work() -> None:
    with pytest.raises(ExportError, match="leave out --combined"):
        plan(("tflite",), "int8", {"combined": True}, verify=False)


def test_16_bit_activations_are_not_for_xnnpack(float32_files: list[Path], tmp_path: Path) -> None:
    encoder = quantised(float32_files[0], tmp_path, "int8_static16", "encode")
    (report,) = inspect_delegates(encoder)
    assert report.problems(xnnpack=False) == []
    assert any("XNNPACK partitions" in problem for problem in report.problems())


def test_sensitivity_keeps_the_worst_layers_float_until_the_rest_fits() -> None:
    scores = {"a": 0.5, "b": 0.01, "c": 0.3, "d": 0.02}
    assert sensitivity(scores, 1.0) == []
    assert sensitivity(scores, 0.04) == ["a", "c"]
    assert sensitivity(scores, 0.0) == ["a", "c", "d", "b"]


def test_parts_that_a_recipe_keeps_in_float_are_found_by_their_names_in_the_graph(
    float32_files: list[Path], sam: MobileSam
) -> None:
    encoder = ImageEncoderTflite(sam)
    graph = Subgraph(read_model(float32_files[0]), 0)
    operators = [operator for operator in graph.graph.operators if graph.name(operator) == "CONV_2D"]
    names = [graph.graph.tensors[int(operator.outputs[0])].name.decode() for operator in operators]
    for name in names:
        assert isinstance(encoder.get_submodule(layer_of(name)), ConvNhwc)
        assert outputs_of(float32_files[0], [layer_of(name)]).count(name) == 1
    for recipe in RECIPES.values():
        for part in recipe.keep_float:
            convolutions = [layer for layer in encoder.get_submodule(part).modules() if isinstance(layer, ConvNhwc)]
            found = [name for name in outputs_of(float32_files[0], [part]) if name in names]
            assert len(found) == sum(layer.conv.groups == 1 for layer in convolutions)
    with pytest.raises(ExportError, match=r"has no layers stages\.3\.downsample; the recipe names others"):
        outputs_of(float32_files[0], ["stem", "stages.3.downsample"])


def test_only_the_part_that_a_recipe_keeps_stays_float(float32_files: list[Path], tmp_path: Path) -> None:
    encoder = tmp_path / "encoder.tflite"
    shutil.copyfile(float32_files[0], encoder)
    quantise(encoder, replace(RECIPES["int8"], keep_float=("stages.1.blocks.1",)))
    graph = Subgraph(read_model(encoder), 0)
    wide = {
        layer_of(graph.graph.tensors[int(operator.outputs[0])].name.decode())
        for operator in graph.graph.operators
        if graph.name(operator) in RECIPES["int8"].operators
        and (weight := graph.constant(int(operator.inputs[1]))) is not None
        and weight.dtype == np.float32
    }
    parts = ("query", "key", "value", "proj", "local_conv", "fc1", "fc2")
    assert wide == {f"stages.1.blocks.1.{part}" for part in parts}
