"""8-bit activations for Core ML: ranges from our executor over many samples, and coremltools' pass fed with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any
from unittest import mock

from numpy.typing import NDArray
from torch import Tensor

from mobilesam_export.targets.coreml.executor import MLProgram
from mobilesam_export.targets.coreml.executor.operations import Operation
from mobilesam_export.targets.coreml.parts import constant_name

# Of each input and computed value over all calibration samples: name -> (smallest, largest).
ActivationRanges = Mapping[str, tuple[float, float]]


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


def quantise_activations(encoder: Any, weights: Set[str], ranges: ActivationRanges) -> Any:
    """The encoder with 8-bit inputs of the convolutions that have those weights.

    Args:
        weights: names of the constants, as ``parts.constants_of`` gives them.

    coremltools' own calibration calls ``predict``, so it needs a Mac, and it keeps the range of the last sample only:
    the running minimum is overwritten before it is compared (coremltools 9.0, ``_update_tensor_range``).
    """
    from coremltools.optimize import coreml as optimize
    from coremltools.optimize.coreml import _post_training_quantization as quantization

    stats = {name: {"rmin": low, "rmax": high} for name, (low, high) in ranges.items()}
    eight_bit = optimize.OpLinearQuantizerConfig(mode="linear_symmetric")
    chosen = [name for name, weight in convolutions(encoder).items() if constant_name(weight) in weights]
    assert chosen, "the converter gave the encoder's weights other names than parts.constants_of expects"
    config = optimize.OptimizationConfig(global_config=None, op_name_configs=dict.fromkeys(chosen, eight_bit))
    with mock.patch.object(quantization, "_get_activation_calibration_stats", lambda *_, **__: stats):
        return optimize.linear_quantize_activations(encoder, config, sample_data=[])


def convolutions(model: Any) -> dict[str, str]:
    """Names of a converted model's convolutions in order, each with its weight's name."""
    function = model.get_spec().mlProgram.functions["main"]
    block = function.block_specializations[function.opset]
    return {
        str(op.attributes["name"].immediateValue.tensor.strings.values[0]): op.inputs["weight"].arguments[0].name
        for op in block.operations
        if op.type == "conv"
    }
