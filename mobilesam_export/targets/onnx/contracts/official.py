"""The official decoder as tools use it: one mask at the photo's size, and SAM's padding point where it belongs.

SAM appends one padding point where there is no box, and none where there is one. Tools do not agree: some append it
always, some never. So what padding comes is taken out, and the point is there when no box corner is.

The mask is the one that the official wrapper's ``return_single_mask`` takes: the best of three alternatives for a click
or a box alone, else the single-mask answer. Tools show the first mask that they get.
"""

from onnx import ModelProto

from mobilesam_export.contract import Contract, PointLabel, Port
from mobilesam_export.targets.onnx.contracts.join import before, behind, graph, in_order, renamed
from mobilesam_export.targets.onnx.official_decoder import official_inputs, official_outputs, with_official_contract

# A label below `least` is an absent slot. `count` is of the slots that are there, the padding point among them.
PADDING = """
    zero = Constant <value_float: float = 0.0> ()
    one = Constant <value_float: float = 1.0> ()
    padding = Constant <value_float: float = {padding}> ()
    absent = Constant <value_float: float = {absent}> ()
    least = Constant <value_float: float = {least}> ()
    points_axis = Constant <value_ints: ints = [1]> ()
    below = Less (given_labels, least)
    kept = Where (below, absent, given_labels)
    highest = ReduceMax <axes: ints = [1], keepdims: int = 1> (given_labels)
    above_one = Sub (highest, one)
    has_box = Clip (above_one, zero, one)
    padding_label = Sub (padding, has_box)
    labels = Concat <axis: int = 1> (kept, padding_label)
    furthest = ReduceMax <axes: ints = [1], keepdims: int = 1> (given_coords)
    origin = Mul (furthest, zero)
    coords = Concat <axis: int = 1> (given_coords, origin)
    above_absent = Sub (labels, absent)
    there = Clip (above_absent, zero, one)
    count = ReduceSum <keepdims: int = 1> (there, points_axis)
"""

_PROMPT = """
prompt (float[prompts, points, 2] point_coords, float[prompts, points] point_labels)
    => (float[prompts, slots, 2] coords, float[prompts, slots] labels, float[prompts, 1] count)
{{
    given_coords = Identity (point_coords)
    given_labels = Identity (point_labels)
    STEPS
}}
""".replace("STEPS", PADDING)

_ONE_MASK = """
one_mask (float[prompts, rows, low, low] rows_of_masks, float[prompts, rows] rows_of_iou, float[prompts, 1] slots_there)
    => (float[prompts, 1, low, low] low_res_masks, float[prompts, 1] iou_predictions)
{{
    weights = Constant <value_floats: floats = [1000.0, 0.0, 0.0, 0.0]> ()
    limit = Constant <value_float: float = 2.5> ()
    axis = Constant <value_ints: ints = [1]> ()
    more = Sub (slots_there, limit)
    bonus = Mul (more, weights)
    scores = Add (rows_of_iou, bonus)
    best = ArgMax <axis: int = 1, keepdims: int = 1> (scores)
    iou_predictions = GatherElements <axis: int = 1> (rows_of_iou, best)
    mask = GatherND <batch_dims: int = 1> (rows_of_masks, best)
    low_res_masks = Unsqueeze (mask, axis)
}}
"""

_ROWS = {"low_res_masks": "rows/low_res_masks", "iou_predictions": "rows/iou_predictions"}
_SLOTS = {"point_coords": "slots/point_coords", "point_labels": "slots/point_labels"}


def official_decoder(decoder: ModelProto, contract: Contract) -> ModelProto:
    """Give a decoder of ``contract``, with four masks and any number of prompts, the form above."""
    labels = {"padding": float(PointLabel.PADDING), "absent": float(PointLabel.ABSENT), "least": 0.0}
    model = before(
        graph(_PROMPT, **labels),
        renamed(decoder, _ROWS | _SLOTS),
        {"coords": "slots/point_coords", "labels": "slots/point_labels"},
        "prompt/",
    )
    links = {
        "rows/low_res_masks": "rows_of_masks",
        "rows/iou_predictions": "rows_of_iou",
        "count": "slots_there",
    }
    model = behind(model, graph(_ONE_MASK), links, "one_mask/")
    chosen = Contract(contract.image_size, None, single_mask=True)
    inputs, outputs = chosen.decoder_inputs, ("low_res_masks", "iou_predictions")
    return with_official_contract(in_order(model, [port.name for port in inputs], outputs), chosen)


def official_ports(image_size: int) -> tuple[Port, ...]:
    """What the decoder's inputs and outputs mean."""
    chosen = Contract(image_size, None, single_mask=True)
    return (*official_inputs(chosen), *official_outputs(chosen))
