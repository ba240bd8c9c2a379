"""Named compression recipes for Core ML packages, each a few lines over coremltools' own passes.

Weights are stored compressed and expanded by Core ML when it loads or runs the package. All recipes start from float16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mobilesam_export.mlprogram import MLProgram
from mobilesam_export.mlprogram.backend import load_coremltools, quiet
from mobilesam_export.mlprogram.operations import Operation

# Of each input and computed value over all calibration samples: name -> (smallest, largest).
ActivationRanges = Mapping[str, tuple[float, float]]

_SMALL = 1024  # constants of fewer elements stay float16: they weigh nothing, and biases and tokens need their bits
_FLOAT_ENDS = 2  # convolutions at either end whose activations stay float16: pixels and embedding need more than 8 bits
_LLOYD_ROUNDS = 100


@dataclass(frozen=True)
class Recipe:
    """How to compress.

    Attributes:
        weight_bits: bits of a stored weight.
        palette: look-up table of k-means centres (one a tensor) instead of a linear scale per output channel.
        activations: also 8-bit activations into convolutions, from calibrated ranges.
        mask_iou: least accepted mask IoU in parity.
        reason: why that limit.
    """

    name: str
    weight_bits: int
    palette: bool
    activations: bool
    mask_iou: float
    reason: str


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "int8", 8, False, False, 0.97, "one scale a channel: 7 bits and a sign of each channel's largest weight"
        ),
        Recipe("palette8", 8, True, False, 0.97, "256 centres a tensor place their bits where the weights are"),
        Recipe("palette6", 6, True, False, 0.93, "64 centres a tensor; outlines move by a pixel or two"),
        Recipe(
            "palette4",
            4,
            True,
            False,
            0.75,
            "16 centres a tensor; opt-in, for the smallest download: look at its masks",
        ),
        Recipe(
            "w8a8",
            8,
            False,
            True,
            0.90,
            "8-bit activations round every layer's input, and clip what calibration missed",
        ),
    )
}


def compress(model: Any, recipe: Recipe, ranges: ActivationRanges | None = None) -> Any:
    """A compressed copy of a float16 ``MLModel``.

    Args:
        ranges: for a recipe with activations, from ``activation_ranges``.
    """
    load_coremltools()
    from coremltools.optimize import coreml as optimize

    with quiet():
        if recipe.palette:
            config = optimize.OpPalettizerConfig(
                mode="custom", lut_function=palette_function(recipe.weight_bits), weight_threshold=_SMALL
            )
            return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=config))
        if recipe.activations:
            assert ranges is not None
            model = _quantize_activations(model, ranges)
        config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=_SMALL)
        return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config))


def activation_ranges(program: MLProgram, samples: Iterable[Mapping[str, NDArray[Any]]]) -> ActivationRanges:
    """Run every sample through the executor; all of them count, unlike in coremltools' own calibration (see below)."""
    ranges: dict[str, tuple[float, float]] = {}

    def widen(name: str, low: float, high: float) -> None:
        seen = ranges.get(name, (low, high))
        ranges[name] = min(low, seen[0]), max(high, seen[1])

    def observe(_: Operation, name: str, value: Tensor) -> None:
        if value.is_floating_point():
            low, high = value.aminmax()
            widen(name, float(low), float(high))

    for sample in samples:
        for name, value in sample.items():
            widen(name, float(value.min()), float(value.max()))
        program.run(sample, observe)
    return ranges


def _quantize_activations(model: Any, ranges: ActivationRanges) -> Any:
    """coremltools' activation quantisation with our ranges.

    Its own calibration calls ``predict``, so it needs a Mac, and it keeps the range of the last sample only: the
    running minimum is overwritten before it is compared (coremltools 9.0, ``_update_tensor_range``).
    """
    from unittest import mock

    from coremltools.optimize import coreml as optimize
    from coremltools.optimize.coreml import _post_training_quantization as quantization

    stats = {name: {"rmin": low, "rmax": high} for name, (low, high) in ranges.items()}
    convolutions, in_float32 = _convolutions(model)
    config = optimize.OptimizationConfig(
        op_type_configs={"conv": optimize.OpLinearQuantizerConfig(mode="linear_symmetric")},
        op_name_configs=dict.fromkeys((*convolutions[:_FLOAT_ENDS], *convolutions[-_FLOAT_ENDS:], *in_float32)),
    )
    with mock.patch.object(quantization, "_get_activation_calibration_stats", lambda *_, **__: stats):
        return optimize.linear_quantize_activations(model, config, sample_data=[])


def _convolutions(model: Any) -> tuple[list[str], list[str]]:
    """Names of a converted model's convolutions in order, and of those among them that are float32."""
    from coremltools.proto import MIL_pb2

    function = model.get_spec().mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    float32 = MIL_pb2.DataType.FLOAT32
    names = {
        str(op.attributes["name"].immediateValue.tensor.strings.values[0]): op.outputs[0].type.tensorType.dataType
        for op in block.operations
        if op.type == "conv"
    }
    return list(names), [name for name, data_type in names.items() if data_type == float32]


def palette_function(bits: int) -> Callable[[NDArray[Any]], tuple[NDArray[Any], NDArray[np.uint8]]]:
    """A palette finder as coremltools' ``custom`` mode takes it: Lloyd's k-means in one dimension.

    Ours, because coremltools' own asks for scikit-learn; deterministic.
    """

    def palette(weight: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        values, inverse, counts = np.unique(weight.astype(np.float64), return_inverse=True, return_counts=True)
        centres = k_means(values, counts, 1 << bits)
        nearest = np.searchsorted((centres[:-1] + centres[1:]) / 2, values)
        return centres.astype(weight.dtype), nearest[inverse.reshape(-1)].astype(np.uint8)

    return palette


def k_means(values: NDArray[np.float64], counts: NDArray[np.int64], clusters: int) -> NDArray[np.float64]:
    """``clusters`` ascending centres for sorted distinct ``values`` that occur ``counts`` times."""
    cumulated = np.concatenate([[0], np.cumsum(counts)])
    sums = np.concatenate([[0.0], np.cumsum(values * counts)])
    # Start where the error would be least for many centres: as dense as the cube root of the values' density.
    # Over bins of equal population that density's integral grows by the width to the power of two thirds.
    bins = min(8 * clusters, len(values))
    edges = values[np.searchsorted(cumulated[1:], np.linspace(0, cumulated[-1] - 1, bins + 1), side="right")]
    growth = np.concatenate([[0.0], np.cumsum(np.cbrt(np.diff(edges)) ** 2)])
    centres: NDArray[np.float64] = np.interp((np.arange(clusters) + 0.5) / clusters * growth[-1], growth, edges)
    for _ in range(_LLOYD_ROUNDS):
        borders = np.concatenate([[0], np.searchsorted(values, (centres[:-1] + centres[1:]) / 2), [len(values)]])
        weights = np.diff(cumulated[borders])
        means = np.diff(sums[borders]) / np.maximum(weights, 1)
        centres = np.sort(np.where(weights > 0, means, centres))
    return centres
