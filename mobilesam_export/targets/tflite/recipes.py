"""The compressed precisions of TFLite files; ``precision`` carries them out."""

from dataclasses import dataclass
from typing import Literal

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class QuantisationRecipe:
    """How to quantise the encoder.

    Attributes:
        kind: ``weights``: stored in 8 bits, computed in float32; ``dynamic``: activations are quantised as they
            come; ``static``: activations have calibrated ranges.
        operators: which are quantised.
        activation_bits: of static activations.
        keep_float: parts of the graph ``ImageEncoderTflite`` that stay float, with all below them.
        mask_iou: least accepted mask IoU in parity.
        reason: why that limit.
    """

    name: str
    kind: Literal["weights", "dynamic", "static"]
    operators: tuple[str, ...]
    mask_iou: float
    reason: str
    activation_bits: int = 0
    keep_float: tuple[str, ...] = ()


# What stays float is decided by benchmarks/tflite_sensitivity.py (results/tflite_sensitivity.md): the stem, the three
# patch mergings, the neck and one MLP make up nine tenths of what 8-bit activations with fixed ranges cost the masks.
# Float stem and neck alone (a guess that this replaces) left a worst mask of 0.46 at 448, which misses the gate.
RECIPES: dict[str, QuantisationRecipe] = {
    recipe.name: recipe
    for recipe in (
        QuantisationRecipe(
            "int8",
            "weights",
            WEIGHTED,
            0.82,
            "7 bits and a sign a weight; twice what the worst mask lost (0.91 at 448, 0.966 at 1024)",
        ),
        QuantisationRecipe(
            "int8_dynamic",
            "dynamic",
            ("CONV_2D", "FULLY_CONNECTED"),
            0.88,
            "8-bit activations, one scale an image; thrice what the worst mask lost (0.965 at 448, 0.968 at 1024)",
            keep_float=("stem",),  # its second convolution costs less time in float than in 8 bits
        ),
        QuantisationRecipe(
            "int8_static",
            "static",
            ("CONV_2D",),
            0.82,
            "8-bit activations, one range for all photos; thrice what the worst mask lost (0.94 at 448, 0.961 at 1024)",
            activation_bits=8,
            keep_float=("stem", *(f"stages.{i}.downsample" for i in range(3)), "stages.2.blocks.1.fc2", "neck"),
        ),
        QuantisationRecipe(
            "int8_static16",
            "static",
            ("CONV_2D",),
            0.82,
            "16-bit activations lose next to nothing, the 8-bit weights remain: as int8 (worst mask 0.92 at 448)",
            activation_bits=16,
        ),
    )
}
