"""A photo in its own size at the door of both graphs: the resize into the model frame, and the way back for the masks.

For tools that would otherwise resize in a way of their own. The resize is Pillow's bilinear, pixel for pixel but for a
rounding: across, then down, with a triangle that widens as the photo shrinks, each pass rounded to whole numbers.
"""

from onnx import ModelProto

from mobilesam_export.targets.onnx.contracts.encoders import framed_encoder
from mobilesam_export.targets.onnx.contracts.join import before, graph
from mobilesam_export.targets.onnx.official_decoder import DRAWN

MOST_SHRUNK = 2  # longest side of a photo, in model frames; the filter has taps for no more

# The size that a photo has in the frame, floor(size * S / longest + 0.5), in whole numbers. Of `size`: height, width.
RESIZED = """
    longest = ReduceMax <keepdims: int = 1> (size)
    twice_frame = Constant <value_ints: ints = [{twice}]> ()
    two = Constant <value_ints: ints = [2]> ()
    twice_scaled = Mul (size, twice_frame)
    to_round = Add (twice_scaled, longest)
    twice_longest = Mul (longest, two)
    resized = Div (to_round, twice_longest)
"""

# One pass of the filter. Output pixel i looks around (i + 0.5) * from / to, which is `at` and the fraction `part`;
# whole numbers keep it exact. Taps beyond the photo, or beyond the triangle, weigh nothing.
_PASS = """
pass (float[1, 3, {shape_before}] {before}, int64[1] {along}_from, int64[1] {along}_to)
    => (float[1, 3, {shape_after}] {after})
{{
    from = Identity ({along}_from)
    to = Identity ({along}_to)
    none = Constant <value_ints: ints = [0]> ()
    one = Constant <value_ints: ints = [1]> ()
    two = Constant <value_ints: ints = [2]> ()
    start = Constant <value_int: int = 0> ()
    step = Constant <value_int: int = 1> ()
    stop = Squeeze (to)
    count = Range (start, stop, step)
    twice_count = Mul (count, two)
    odd = Add (twice_count, one)
    position = Mul (odd, from)
    whole = Mul (to, two)
    at = Div (position, whole)
    at_whole = Mul (at, whole)
    remainder = Sub (position, at_whole)
    remainder_float = Cast <to: int = 1> (remainder)
    whole_float = Cast <to: int = 1> (whole)
    part = Div (remainder_float, whole_float)
    from_float = Cast <to: int = 1> (from)
    to_float = Cast <to: int = 1> (to)
    factor = Div (from_float, to_float)
    unit = Constant <value_floats: floats = [1.0]> ()
    reach = Max (factor, unit)
    taps = Constant <value_ints: ints = {taps}> ()
    column = Constant <value_ints: ints = [{count}, 1]> ()
    tap = Reshape (taps, column)
    asked = Add (tap, at)
    last = Sub (from, one)
    low = Max (asked, none)
    index = Min (low, last)
    there = Equal (asked, index)
    there_float = Cast <to: int = 1> (there)
    half = Constant <value_floats: floats = [0.5]> ()
    tap_float = Cast <to: int = 1> (tap)
    centre = Add (tap_float, half)
    away = Sub (centre, part)
    distance = Abs (away)
    relative = Div (distance, reach)
    height_of = Sub (unit, relative)
    triangle = Relu (height_of)
    weight = Mul (triangle, there_float)
    sum = ReduceSum <keepdims: int = 1> (weight, none)
    share = Div (weight, sum)
    share_shape = Constant <value_ints: ints = {ends}> ()
    shares = Reshape (share, share_shape)
    gathered = Gather <axis: int = {axis}> ({before}, index)
    weighted = Mul (gathered, shares)
    taps_axis = Constant <value_ints: ints = [{axis}]> ()
    mixed = ReduceSum <keepdims: int = 0> (weighted, taps_axis)
    raised = Add (mixed, half)
    floored = Floor (raised)
    least = Constant <value_float: float = 0.0> ()
    most = Constant <value_float: float = 255.0> ()
    {after} = Clip (floored, least, most)
}}
"""
_SIZES = """
sizes (float[1, 3, height, width] {name})
    => (float[1, 3, height, width] photo, int64[1] height_from, int64[1] height_to,
        int64[1] width_from, int64[1] width_to, float[1, 2] {size_name})
{{
    photo = Identity ({name})
    shape = Shape ({name})
    at_height = Constant <value_ints: ints = [2]> ()
    end = Constant <value_ints: ints = [4]> ()
    size = Slice (shape, at_height, end)
    RESIZED
    first = Constant <value_ints: ints = [0]> ()
    second = Constant <value_ints: ints = [1]> ()
    height_from = Gather (size, first)
    width_from = Gather (size, second)
    height_to = Gather (resized, first)
    width_to = Gather (resized, second)
    size_float = Cast <to: int = 1> (size)
    {size_name} = Unsqueeze (size_float, first)
}}
""".replace("RESIZED", RESIZED)
# The masks where the photo is put at the left top of a square, as it is, but a side longer than the square fills it.
_MASKS = """
masks (float[prompts, count, low, low] logits, float[1, 2] photo_size)
    => (float[1, prompts, count, {size}, {size}] {masks})
{{
    photo_axis = Constant <value_ints: ints = [0]> ()
    flat_size = Squeeze (photo_size, photo_axis)
    size = Cast <to: int = 7> (flat_size)
    RESIZED
    square = Constant <value_ints: ints = [{size}, {size}]> ()
    drawn_size = Min (size, square)
    DRAWN
    beyond = Sub (square, drawn_size)
    nothing = Constant <value_ints: ints = [0, 0, 0, 0, 0, 0]> ()
    pads = Concat <axis: int = 0> (nothing, beyond)
    padded = Pad (drawn, pads)
    {masks} = Unsqueeze (padded, photo_axis)
}}
""".replace("RESIZED", RESIZED).replace("DRAWN", DRAWN)


def native_photo_encoder(encoder: ModelProto, image_size: int, pixels: str, size: str) -> ModelProto:
    """An encoder that takes a photo as it is.

    Args:
        encoder: takes (1, 3, S, S) RGB in the model frame.
        image_size: S, side of the frame.
        pixels: name of the input, (1, 3, height, width) RGB of 0 to 255, the longest side at most ``MOST_SHRUNK`` S.
        size: name of a new output, (1, 2): the photo's height and width.
    """
    taps = list(range(-MOST_SHRUNK, MOST_SHRUNK + 1))
    sizes = "height, width", "height, frame_width", "frame_height, frame_width"
    passes: list[ModelProto] = []
    for before_it, after_it, along, axis in (("photo", "across", "width", 3), ("across", "down", "height", 2)):
        names = {"before": before_it, "after": after_it, "along": along, "axis": axis}
        shapes = {"shape_before": sizes[len(passes)], "shape_after": sizes[len(passes) + 1]}
        ends = [len(taps), -1, *[1] * (3 - axis)]  # so that a tap's share meets its row or column
        passes.append(graph(_PASS, **names, **shapes, taps=taps, count=len(taps), ends=ends))
    model = before(passes[1], framed_encoder(encoder, image_size), {"down": "small"}, "down/")
    model = before(passes[0], model, {"across": "across"}, "across/")
    given = {name: name for name in ("photo", "width_from", "width_to", "height_from", "height_to")}
    return before(graph(_SIZES, name=pixels, size_name=size, twice=2 * image_size), model, given, "sizes/")


def native_photo_masks(image_size: int, masks: str) -> ModelProto:
    """(N, C, low, low) ``logits`` and the ``photo_size`` to (1, N, C, S, S) ``masks`` on the photo.

    The photo lies at the left top of the square as it is; a side longer than S is shrunk to S.
    """
    return graph(_MASKS, size=image_size, twice=2 * image_size, drawn="drawn", masks=masks)
