"""The decoder of CVAT's browser plugin: the official inputs, and a mask cut to its bounds.

A mask is 0 or 255 in bytes: older plugins compare with 0, newer ones read the bytes as they are. ``xtl, ytl`` and
``xbr, ybr`` are its first and last column and row in the photo, both inside; of an empty mask, all are 0.
"""

from onnx import ModelProto

from mobilesam_export.contract import Contract, Port
from mobilesam_export.targets.onnx.contracts.join import behind, graph, in_order, renamed
from mobilesam_export.targets.onnx.contracts.official import official_decoder, official_ports

_CROP = """
crop (float[prompts, 1, height, width] full)
    => (uint8[prompts, 1, mask_height, mask_width] masks, int32[1] xtl, int32[1] ytl, int32[1] xbr, int32[1] ybr)
{{
    zero = Constant <value_float: float = 0.0> ()
    one = Constant <value_ints: ints = [1]> ()
    axes = Constant <value_ints: ints = [2, 3]> ()
    shown = Constant <value_float: float = 255.0> ()
    inside = Greater (full, zero)
    flags = Cast <to: int = 1> (inside)
    rows = ReduceMax <axes: ints = [0, 1, 3], keepdims: int = 0> (flags)
    columns = ReduceMax <axes: ints = [0, 1, 2], keepdims: int = 0> (flags)
    any_flag = ReduceMax <axes: ints = [0], keepdims: int = 1> (rows)
    any = Cast <to: int = 7> (any_flag)
    top = ArgMax <axis: int = 0, keepdims: int = 1> (rows)
    left = ArgMax <axis: int = 0, keepdims: int = 1> (columns)
    last_row = ArgMax <axis: int = 0, keepdims: int = 1, select_last_index: int = 1> (rows)
    last_column = ArgMax <axis: int = 0, keepdims: int = 1, select_last_index: int = 1> (columns)
    bottom = Mul (last_row, any)
    right = Mul (last_column, any)
    below = Add (bottom, one)
    beside = Add (right, one)
    starts = Concat <axis: int = 0> (top, left)
    ends = Concat <axis: int = 0> (below, beside)
    cropped = Slice (flags, starts, ends, axes)
    bright = Mul (cropped, shown)
    masks = Cast <to: int = 2> (bright)
    xtl = Cast <to: int = 6> (left)
    ytl = Cast <to: int = 6> (top)
    xbr = Cast <to: int = 6> (right)
    ybr = Cast <to: int = 6> (bottom)
}}
"""
_BOUNDS = {
    "xtl": "first column of the mask in the photo",
    "ytl": "first row of the mask in the photo",
    "xbr": "last column of the mask in the photo",
    "ybr": "last row of the mask in the photo",
}


def cvat_decoder(decoder: ModelProto, contract: Contract) -> ModelProto:
    """Give a decoder of ``contract``, with four masks and any number of prompts, CVAT's form."""
    official = renamed(official_decoder(decoder, contract), {"masks": "whole/masks"})
    inputs = [value.name for value in official.graph.input]
    model = behind(official, crop(), {"whole/masks": "full"}, "crop/")
    return in_order(model, inputs, ["masks", "iou_predictions", "low_res_masks", *_BOUNDS])


def crop() -> ModelProto:
    """Mask logits at the photo's size to the mask cut to its bounds."""
    return graph(_CROP)


def cvat_ports(image_size: int) -> tuple[Port, ...]:
    """What the decoder's inputs and outputs mean."""
    masks = Port("masks", (1, 1, "mask_height", "mask_width"), "uint8", "255 inside, 0 outside, cut to xtl .. ybr")
    others = [port for port in official_ports(image_size) if port.name != "masks"]
    return (*others, masks, *(Port(name, (1,), "int32", meaning) for name, meaning in _BOUNDS.items()))
