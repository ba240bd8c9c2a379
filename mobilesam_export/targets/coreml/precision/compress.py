"""Named compression recipes for Core ML packages, each a few lines over coremltools' own passes.

Weights are stored compressed and expanded by Core ML when it loads or runs the package. All recipes start from float16.

What is compressed follows from what a rounding does there, not from what one set of weights happens to bear:

- The decoder's attention, learned tokens and upscaling stay float16. A softmax turns an error of a score into a factor
  of e to that error, and the scores are as large as training made them; the upscaling's few weights (0.1 MB) draw
  every outline. Compressed alone to 8 bits, they took single masks to IoU 0.00 (values of the self-attention), 0.15,
  0.59, 0.79, 0.82 and 0.85 on earlier demonstration weights; all perceptrons together to 0.990.
- The decoder's perceptrons, which are two thirds of it, and the encoder are compressed.
- Depthwise convolutions stay float16 under every recipe: with nine weights a channel nothing averages their roundings
  out, and they are 0.02 MB. At 8 bits they cost more than all else (lowest mask IoU 0.966 instead of 0.980
  with a neighbour of those weights). The last two blocks' are the exception: at 8 bits nothing was lost
  (lowest 0.988 either way).
- A RepViT, a ResNet, an HGNetV2 have neither attention nor palettes: their convolutions are of the next kind.
- Other convolutions with a folded BatchNorm have one scale an output channel, so they take 8 bits with a scale a
  channel, under every recipe.
- So do the decoder's perceptrons: centres for a whole layer serve its small channels badly (256 of them: lowest mask
  IoU 0.948 instead of 0.986; 64: 0.907).
- Attention biases repeat at most a thousand values over a million entries: a palette fits them, a linear scale does
  not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Set
from typing import Any

from mobilesam_export.rewrites.parts import part_of
from mobilesam_export.targets.coreml.convert import EncoderCoreML
from mobilesam_export.targets.coreml.decoder import PromptDecoderCoreML
from mobilesam_export.targets.coreml.executor.backend import load_coremltools, quiet
from mobilesam_export.targets.coreml.parts import constant_name, constants_of
from mobilesam_export.targets.coreml.precision.activations import ActivationRanges, quantise_activations
from mobilesam_export.targets.coreml.precision.palettes import palette_function
from mobilesam_export.targets.coreml.precision.recipes import CompressionRecipe

_SMALL = 1024  # constants of fewer elements stay float16: they weigh nothing, and biases and tokens need their bits
_GROUP = 16  # output channels that share a palette where the system allows more than one a tensor
_BIAS_BITS = 6

Graph = EncoderCoreML | PromptDecoderCoreML


def compress(
    model: Any,
    graph: Graph,
    recipe: CompressionRecipe,
    ranges: ActivationRanges | None = None,
    exceptions: Collection[str] = (),
) -> Any:
    """A compressed copy of a float16 ``MLModel``.

    Args:
        graph: what it was converted from; it knows which parts are treated apart.
        ranges: of the encoder, for a recipe with activations; from ``activation_ranges``.
        exceptions: parts (see ``rewrites.parts``) that stay float16.
    """
    load_coremltools()
    from coremltools.optimize import coreml as optimize

    with quiet():
        exact = constants_of(graph, list(exceptions))
        linear, palettes = _configurations(model, graph, recipe, exact)
        if recipe.activations and not isinstance(graph, PromptDecoderCoreML):
            assert ranges is not None
            model = quantise_activations(model, constants_of(graph, graph.EIGHT_BIT_INPUTS) - exact, ranges)
        model = optimize.palettize_weights(model, optimize.OptimizationConfig(op_name_configs=palettes))
        return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(op_name_configs=linear))


def compressed_parts(model: Any, graph: Graph, recipe: CompressionRecipe) -> list[str]:
    """Parts with constants that a recipe compresses."""
    linear, palettes = _configurations(model, graph, recipe, frozenset())
    compressed = {constant_name(name) for name in (*linear, *palettes)}
    parts = dict.fromkeys(part_of(path) for path in graph.state_dict() if path.replace(".", "_") in compressed)
    return [part for part in parts if part]


def _configurations(
    model: Any, graph: Graph, recipe: CompressionRecipe, exact: Set[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """coremltools' settings for each constant to be scaled linearly, and for each to be given palettes."""
    ct = load_coremltools()
    from coremltools.optimize import coreml as optimize

    def palette(bits: int, grouped: bool) -> Any:
        options = {"granularity": "per_grouped_channel", "group_size": _GROUP} if grouped else {}
        return optimize.OpPalettizerConfig(
            mode="custom", lut_function=palette_function(bits), weight_threshold=_SMALL, **options
        )

    scaled = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=_SMALL)
    biases = palette(min(_BIAS_BITS, recipe.weight_bits), grouped=False)
    weights = palette(recipe.weight_bits, model.get_spec().specificationVersion >= ct.target.iOS18.value)
    large = _large_constants(model)
    palettes: dict[str, Any] = {}
    linear: dict[str, Any] = {}
    if isinstance(graph, PromptDecoderCoreML):
        perceptrons = constants_of(graph, graph.PERCEPTRONS)
        found = {name for name in large if constant_name(name) in perceptrons}
        assert found, "the converter gave the decoder's perceptrons other names than parts.constants_of expects"
        return {name: scaled for name in large if name in found and constant_name(name) not in exact}, palettes
    depthwise = constants_of(graph, graph.DEPTHWISE)
    batch_norm_folded = constants_of(graph, graph.BATCH_NORM_FOLDED)
    attention_biases = constants_of(graph, graph.ATTENTION_BIASES)
    names = {constant_name(name) for name in large}
    assert names & attention_biases or not attention_biases, (
        "the converter gave the attention biases other names than parts.constants_of expects"
    )
    for name in large:
        constant = constant_name(name)
        if constant in depthwise or constant in exact:
            continue
        if constant in attention_biases:
            palettes[name] = biases
        elif recipe.palette and constant not in batch_norm_folded:
            palettes[name] = weights
        else:
            linear[name] = scaled
    return linear, palettes


def _large_constants(model: Any) -> list[str]:
    """Names of a converted model's constants of two axes or more and more than ``_SMALL`` elements."""
    function = model.get_spec().mlProgram.functions["main"]
    names = []
    for op in function.block_specializations[function.opset].operations:
        shape = (
            [dimension.constant.size for dimension in op.outputs[0].type.tensorType.dimensions] if op.outputs else []
        )
        if op.type == "const" and len(shape) > 1 and math.prod(shape) > _SMALL:
            names.append(str(op.outputs[0].name))
    return names
