"""The compressed precisions of Core ML packages; ``compress`` says what is compressed and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CompressionRecipe:
    """How to compress.

    Attributes:
        weight_bits: bits of a stored weight.
        palette: look-up tables of k-means centres (one a tensor; from iOS 18 one for 16 channels) instead of a linear
            scale per output channel.
        activations: also 8-bit activations into most of the encoder's convolutions, from calibrated ranges.
        mask_iou: least accepted mask IoU in parity.
        reason: why that limit.
    """

    name: str
    weight_bits: int
    palette: bool
    activations: bool
    mask_iou: float
    reason: str


RECIPES: dict[str, CompressionRecipe] = {
    recipe.name: recipe
    for recipe in (
        CompressionRecipe(
            "int8", 8, False, False, 0.97, "7 bits and a sign of each channel's largest weight; outlines stay"
        ),
        CompressionRecipe(
            "palette8", 8, True, False, 0.97, "256 centres keep as many bits as int8, placed where the weights are"
        ),
        CompressionRecipe("palette6", 6, True, False, 0.95, "64 centres a tensor; outlines move by a pixel in places"),
        CompressionRecipe(
            "palette4", 4, True, False, 0.75, "16 centres a tensor; opt-in, for the smallest download: look at it"
        ),
        CompressionRecipe(
            "w8a8", 8, False, True, 0.95, "8-bit activations round each layer's input and clip what was not seen"
        ),
    )
}
