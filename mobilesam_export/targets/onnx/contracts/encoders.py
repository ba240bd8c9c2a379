"""The image encoder for tools that prepare pixels in their own way.

Ours takes RGB of 0 to 255 in a square filled with the pad colour, which is the mean.
"""

from onnx import ModelProto

from mobilesam_export.contract import PIXEL_MEAN, PIXEL_STD
from mobilesam_export.targets.onnx.contracts.join import before, graph

# Zero, which tools pad with after they normalised, becomes the mean: exactly our pad colour.
_PIXELS = """
pixels (float[1, 3, {size}, {size}] {name}) => (float[1, 3, {size}, {size}] pixels)
{{
    flat_mean = Constant <value_floats: floats = {mean}> ()
    flat_std = Constant <value_floats: floats = {std}> ()
    shape = Constant <value_ints: ints = [1, 3, 1, 1]> ()
    mean = Reshape (flat_mean, shape)
    std = Reshape (flat_std, shape)
    scaled = Mul ({name}, std)
    pixels = Add (scaled, mean)
}}
"""

# Padded while the mean is taken away, so that the padding is the mean.
_FRAME = """
frame (float[height, width, 3] {name}) => (float[1, 3, {size}, {size}] pixels)
{{
    mean = Constant <value_floats: floats = {mean}> ()
    centred = Sub ({name}, mean)
    shape = Shape ({name})
    full = Constant <value_ints: ints = [{size}, {size}, 3]> ()
    beyond = Sub (full, shape)
    nothing = Constant <value_ints: ints = [0, 0, 0]> ()
    pads = Concat <axis: int = 0> (nothing, beyond)
    padded = Pad (centred, pads)
    framed = Add (padded, mean)
    square = Constant <value_ints: ints = [1, {size}, {size}, 3]> ()
    photo = Reshape (framed, square)
    pixels = Transpose <perm: ints = [0, 3, 1, 2]> (photo)
}}
"""


def normalised_encoder(encoder: ModelProto, image_size: int, name: str) -> ModelProto:
    """An encoder of (1, 3, S, S) pixels, normalised and then padded with zeros; ``name`` is its input's."""
    part = graph(_PIXELS, name=name, size=image_size, mean=list(PIXEL_MEAN), std=list(PIXEL_STD))
    return before(part, encoder, {"pixels": "image"}, "door/")


def photo_encoder(encoder: ModelProto, image_size: int, name: str) -> ModelProto:
    """An encoder of one photo of (height, width, 3) RGB of 0 to 255, of at most S each; ``name`` is its input's."""
    part = graph(_FRAME, name=name, size=image_size, mean=list(PIXEL_MEAN))
    return before(part, encoder, {"pixels": "image"}, "door/")
