"""Named compression recipes for Core ML packages, each a few lines over coremltools' own passes.

Weights are stored compressed and expanded by Core ML when it loads or runs the package. All recipes start from float16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreml_backend import load_coremltools, quiet

# Range of each computed value over all calibration samples: name -> (smallest, largest).
ActivationRanges = Mapping[str, tuple[float, float]]

_SMALL = 2048  # constants of fewer elements stay float16: they weigh nothing, and biases and tokens need their bits


@dataclass(frozen=True)
class Recipe:
    """How to compress.

    Attributes:
        weight_bits: bits of a stored weight.
        palette: look-up table of k-means centres (one a tensor) instead of a linear scale per output channel.
        activations: also 8-bit activations around convolutions, from calibrated ranges.
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
        Recipe("int8", 8, False, False, 0.97, "one scale a channel: 7 bits and a sign of each channel's largest weight"),
        Recipe("palette8", 8, True, False, 0.97, "256 centres a tensor place their bits where the weights are"),
        Recipe("palette6", 6, True, False, 0.93, "64 centres a tensor; outlines move by a pixel or two"),
        Recipe("palette4", 4, True, False, 0.75, "16 centres a tensor; opt-in, for the smallest download: look at its masks"),
        Recipe("w8a8", 8, False, True, 0.90, "8-bit activations round every layer's output, and clip what calibration missed"),
    )
}


def compress(model: Any, recipe: Recipe, ranges: ActivationRanges | None = None) -> Any:
    """A compressed copy of a float16 ``MLModel``.

    Args:
        ranges: for a recipe with activations: of every computed value by name.

    Raises:
        ExportError: the recipe needs ranges and there are none.
    """
    load_coremltools()
    from coremltools.optimize import coreml as optimize

    with quiet():
        if recipe.palette:
            config = optimize.OpPalettizerConfig(mode="kmeans", nbits=recipe.weight_bits, weight_threshold=_SMALL)
            return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=config))
        if recipe.activations:
            if ranges is None:
                raise ExportError(f"got recipe {recipe.name} without activation ranges; calibrate first")
            model = _quantize_activations(model, ranges)
        config = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=_SMALL)
        return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=config))


def _quantize_activations(model: Any, ranges: ActivationRanges) -> Any:
    """coremltools' activation quantisation with our ranges.

    Its own calibration calls ``predict``, so it needs a Mac, and it keeps the range of the last sample only: the running
    minimum is overwritten before it is compared (coremltools 9.0, ``_update_tensor_range``). Ours come from the executor.
    """
    from unittest import mock

    from coremltools.optimize import coreml as optimize
    from coremltools.optimize.coreml import _post_training_quantization as quantization

    stats = {name: {"rmin": low, "rmax": high} for name, (low, high) in ranges.items()}
    config = optimize.OptimizationConfig(
        op_type_configs={"conv": optimize.OpLinearQuantizerConfig(mode="linear_symmetric")}
    )
    with mock.patch.object(quantization, "_get_activation_calibration_stats", lambda *_, **__: stats):
        return optimize.linear_quantize_activations(model, config, sample_data=[])
