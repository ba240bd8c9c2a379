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
frame (float[1, 3, frame_height, frame_width] small) => (float[1, 3, {size}, {size}] pixels)
{{
    flat_mean = Constant <value_floats: floats = {mean}> ()
    mean_shape = Constant <value_ints: ints = [1, 3, 1, 1]> ()
    mean = Reshape (flat_mean, mean_shape)
    centred = Sub (small, mean)
    shape = Shape (small)
    full = Constant <value_ints: ints = [1, 3, {size}, {size}]> ()
    beyond = Sub (full, shape)
    nothing = Constant <value_ints: ints = [0, 0, 0, 0]> ()
    pads = Concat <axis: int = 0> (nothing, beyond)
    padded = Pad (centred, pads)
    pixels = Add (padded, mean)
}}
"""
_CHANNELS_LAST = """
channels_last (float[height, width, 3] {name}) => (float[1, 3, height, width] photo)
{{
    first = Constant <value_ints: ints = [0]> ()
    channels_first = Transpose <perm: ints = [2, 0, 1]> ({name})
    photo = Unsqueeze (channels_first, first)
}}
"""


def normalised_encoder(encoder: ModelProto, image_size: int, name: str) -> ModelProto:
    """An encoder of (1, 3, S, S) pixels, normalised and then padded with zeros; ``name`` is its input's."""
    part = graph(_PIXELS, name=name, size=image_size, mean=list(PIXEL_MEAN), std=list(PIXEL_STD))
    return before(part, encoder, {"pixels": "image"}, "door/")


def framed_encoder(encoder: ModelProto, image_size: int) -> ModelProto:
    """An encoder of ``small``, (1, 3, height, width) RGB of 0 to 255, of at most S each, which it pads to the frame."""
    return before(graph(_FRAME, size=image_size, mean=list(PIXEL_MEAN)), encoder, {"pixels": "image"}, "frame/")


def photo_encoder(encoder: ModelProto, image_size: int, name: str) -> ModelProto:
    """An encoder of one photo of (height, width, 3) RGB of 0 to 255, of at most S each; ``name`` is its input's."""
    model = framed_encoder(encoder, image_size)
    return before(graph(_CHANNELS_LAST, name=name), model, {"photo": "small"}, "door/")
