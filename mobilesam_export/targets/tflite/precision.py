"""Named quantisation recipes for the image encoder as a TFLite file, each a few lines over ai-edge-quantizer.

The prompt decoder gets float16 weights under every recipe, by this rule: it must not cost more masks than the encoder.
With 8-bit weights in its attentions alone the mean mask IoU falls to 0.72 to 0.80 (demonstration weights at 448, by
benchmarks/tflite_sensitivity.py); its MLPs would bear them, 2 MB less for 0.003 of the mean, but the worst mask loses
another 0.06. Nothing of this showed on random weights.
"""

import contextlib
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.chatter import without_native_chatter
from mobilesam_export.contract import PAD_COLOUR, PAD_COLOUR_8BIT
from mobilesam_export.errors import ExportError
from mobilesam_export.model_frame import mirrored_photos, model_frame
from mobilesam_export.rewrites.parts import part_of
from mobilesam_export.targets.tflite.flatbuffer import Subgraph, read_model
from mobilesam_export.targets.tflite.layers import layer_of, lies_in
from mobilesam_export.targets.tflite.recipes import QuantisationRecipe

Samples = list[dict[str, NDArray[Any]]]
Ranges = dict[str, Any]  # by tensor, as ai-edge-quantizer calibrates them


def quantise(
    path: Path, recipe: QuantisationRecipe, samples: Samples | None = None, ranges: Ranges | None = None
) -> None:
    """Quantise a float32 encoder file in place.

    Args:
        path: with the signature ``encode`` only.
        samples: named inputs to calibrate a static recipe with.
        ranges: of ``calibrate``, instead of samples.

    Raises:
        ExportError: ai-edge-quantizer is missing, or a static recipe comes without samples.
    """
    static = recipe.kind == "static"
    if static and not samples and not ranges:
        raise ExportError(
            f"got {recipe.name} without calibration photos, expected at least one; give some, or choose int8"
        )
    with quiet():
        engine = prepare(path, recipe)
        if static and not ranges:
            ranges = engine.calibrate({"encode": samples})
        result = engine.quantize(ranges if static else None)
        path.unlink()
        result.export_model(str(path))


def calibrate(path: Path, recipe: QuantisationRecipe, samples: Samples) -> Ranges:
    """The ranges of a static recipe's activations, kept-float layers included; by far its slowest step."""
    with quiet():
        ranges: Ranges = prepare(path, replace(recipe, keep_float=())).calibrate({"encode": samples})
    return ranges


def prepare(path: Path, recipe: QuantisationRecipe) -> Any:
    """A ``Quantizer`` with the recipe's settings.

    Raises:
        ExportError: ai-edge-quantizer is missing.
    """
    try:
        from ai_edge_quantizer import quantizer
        from ai_edge_quantizer.qtyping import TFLOperationName
    except ImportError as error:
        raise ExportError(f"ai-edge-quantizer is missing ({error}); run: pip install ai-edge-quantizer") from error
    engine = quantizer.Quantizer(str(path))
    for name in recipe.operators:
        operator = TFLOperationName(name)
        if recipe.kind == "static":
            engine.add_static_config(".*", operator, recipe.activation_bits, 8)
        elif recipe.kind == "dynamic":
            engine.add_dynamic_config(".*", operator, 8)
        else:
            engine.add_weight_only_config(".*", operator, 8)
    if kept := outputs_of(path, recipe.keep_float):
        engine.update_quantization_recipe(
            # The quantiser takes operators by patterns of their outputs' names. One pattern: it holds every operator
            # against every rule so far.
            f"^({'|'.join(map(re.escape, kept))})(;|$)",
            TFLOperationName.ALL_SUPPORTED,
            algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE,
        )
    return engine


def outputs_of(path: Path, parts: Sequence[str]) -> list[str]:
    """Names of the tensors that the operators of those parts of a graph put out, in the order of the file.

    Args:
        parts: paths of the graph's attributes, such as ``stages.2.blocks.1.fc2``; everything below is meant too.

    Raises:
        ExportError: an operator of some part is not there.
    """
    graph = Subgraph(read_model(path), 0)
    names = [graph.graph.tensors[int(operator.outputs[0])].name.decode() for operator in graph.graph.operators]
    chosen = [name for name in names if any(lies_in(layer_of(name), part) for part in parts)]
    absent = [part for part in parts if not any(lies_in(layer_of(name), part) for name in chosen)]
    if absent:
        raise ExportError(f"{path.name} has no layers {', '.join(absent)}; the recipe names others than the graph has")
    return chosen


def quantised_parts(model: Any, recipe: QuantisationRecipe) -> list[str]:
    """Parts with layers that a recipe quantises."""
    graph = Subgraph(model, 0)
    found: dict[str, None] = {}
    for operator in graph.graph.operators:
        if graph.name(operator) not in recipe.operators or graph.constant(int(operator.inputs[1])) is None:
            continue
        layer = layer_of(graph.graph.tensors[int(operator.outputs[0])].name.decode())
        if (part := part_of(layer)) and not any(lies_in(layer, kept) for kept in recipe.keep_float):
            found[part] = None
    return list(found)


def calibration_samples(image_size: int, dtype: Any = np.float32, photos: Sequence[Path] | None = None) -> Samples:
    """Photos (the bundled ones if None) as the encoder takes them, mirrored: parity judges on photos as they are."""
    colour = PAD_COLOUR_8BIT if np.dtype(dtype) == np.uint8 else PAD_COLOUR
    return [
        {"image": model_frame(photo, image_size, pad_colour=colour, dtype=dtype, channels_first=False)}
        for photo in mirrored_photos(image_size, photos)
    ]


def sensitivity(scores: Mapping[str, float], budget: float) -> list[str]:
    """Which layers must stay float so that the sum of what the others lose keeps within ``budget``.

    Args:
        scores: what this layer alone quantised costs, by layer, in a measure that adds up over layers.
        budget: greatest sum.

    Returns:
        The costliest layers, worst first; as few as the budget needs.
    """
    remaining = math.fsum(scores.values())
    kept = []
    for name, loss in sorted(scores.items(), key=lambda item: -item[1]):
        if remaining <= budget:
            break
        kept.append(name)
        remaining -= loss
    return kept


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the quantiser's progress bars and sizes, and a warning that calibration needs memory."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        without_native_chatter(),
    ):
        warnings.simplefilter("ignore", UserWarning)
        yield
