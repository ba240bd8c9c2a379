"""``SamModel`` of transformers.js, with the two configurations that it reads.

Its decoder takes P prompts on one photo: points of int64 labels 1, 0, -1 (SAM's "not a point") and -10 (ignored); the
padding point is the graph's to add. Labels 2 and 3 mean a box's corners here too: transformers.js sends ``input_boxes``
only to a graph that names it as an input, and then refuses prompts without a box.

transformers.js resizes in a way of its own, another one in browsers, and this model answers such differences with other
masks. So it is told to leave the photo as it is; the encoder's graph resizes, and hands on the photo's size where
SAM hands on positional embeddings, which are constants of the decoder here. ``post_process_masks`` resizes masks to
``pad_size``, cuts out the photo from the left top and resizes that to the photo; what it cuts out ends at ``pad_size``.
"""

import json
from typing import Any

from onnx import ModelProto

from mobilesam_export.contract import Contract, PointLabel, Port
from mobilesam_export.targets.onnx.contracts.join import before, behind, graph, in_order, renamed
from mobilesam_export.targets.onnx.contracts.native_photo import (
    MOST_SHRUNK,
    RESIZED,
    native_photo_encoder,
    native_photo_masks,
)
from mobilesam_export.targets.onnx.contracts.official import PADDING

# Of its files, by our precisions; transformers.js has more names, and takes q8 in a browser if it is told nothing.
SUFFIXES = {"float32": "", "float16": "_fp16", "int8": "_quantized"}
DTYPES = {"float32": "fp32", "float16": "fp16", "int8": "q8"}
# Lanczos, for photos too large for the graph. Bilinear (2) moves them by up to a pixel in Node; browsers read none.
_RESAMPLE = 1

_POINTS = """
prompt (float[1, prompts, points, 2] input_points, int64[1, prompts, points] input_labels, float[1, 2] {size_name})
    => (float[prompts, slots, 2] coords, float[prompts, slots] labels,
        float[prompts, 1, {low}, {low}] mask, float[1] has, float[1, 2] size_too)
{{
    photo_axis = Constant <value_ints: ints = [0]> ()
    flat_size = Squeeze ({size_name}, photo_axis)
    size = Cast <to: int = 7> (flat_size)
    RESIZED
    resized_float = Cast <to: int = 1> (resized)
    factors = Div (resized_float, flat_size)
    x_then_y = Constant <value_ints: ints = [1, 0]> ()
    factors_xy = Gather (factors, x_then_y)
    whole_coords = Squeeze (input_points, photo_axis)
    given_coords = Mul (whole_coords, factors_xy)
    size_too = Identity ({size_name})
    whole_labels = Squeeze (input_labels, photo_axis)
    given_labels = Cast <to: int = 1> (whole_labels)
    STEPS
    shape = Shape (given_labels)
    first = Constant <value_ints: ints = [0]> ()
    second = Constant <value_ints: ints = [1]> ()
    count_of_prompts = Slice (shape, first, second)
    rest = Constant <value_ints: ints = [1, {low}, {low}]> ()
    mask_shape = Concat <axis: int = 0> (count_of_prompts, rest)
    mask = ConstantOfShape (mask_shape)
    has = Constant <value_floats: floats = [0.0]> ()
}}
"""
_ALTERNATIVES = """
answer (float[prompts, 4, {low}, {low}] rows_of_masks, float[prompts, 4] rows_of_iou)
    => (float[1, prompts, 3] iou_scores, float[prompts, 3, {low}, {low}] alternatives)
{{
    first = Constant <value_ints: ints = [1]> ()
    end = Constant <value_ints: ints = [4]> ()
    photo_axis = Constant <value_ints: ints = [0]> ()
    alternatives = Slice (rows_of_masks, first, end, first)
    iou = Slice (rows_of_iou, first, end, first)
    iou_scores = Unsqueeze (iou, photo_axis)
}}
"""
# The encoder's second output and an input of the decoder, by the only name that SamModel hands on.
_PHOTO_SIZE = "image_positional_embeddings"


def vision_encoder(encoder: ModelProto, image_size: int) -> ModelProto:
    """Give our encoder this form."""
    model = native_photo_encoder(encoder, image_size, "pixel_values", _PHOTO_SIZE)
    return in_order(model, ["pixel_values"], ["image_embeddings", _PHOTO_SIZE])


def prompt_encoder_mask_decoder(decoder: ModelProto, contract: Contract) -> ModelProto:
    """Give a decoder of ``contract``, with four masks and any number of prompts, this form."""
    low, side = contract.low_res_size, contract.image_size
    names = ("point_coords", "point_labels", "mask_input", "has_mask_input", "low_res_masks", "iou_predictions")
    inner = renamed(decoder, {name: f"sam/{name}" for name in names})
    labels = {"padding": float(PointLabel.PADDING), "absent": float(PointLabel.ABSENT), "least": -1.0}
    text = _POINTS.replace("STEPS", PADDING).replace("RESIZED", RESIZED)
    links = dict(zip(("coords", "labels", "mask", "has"), (f"sam/{name}" for name in names[:4]), strict=True))
    model = before(graph(text, low=low, size_name=_PHOTO_SIZE, twice=2 * side, **labels), inner, links, "prompt/")
    links = {"sam/low_res_masks": "rows_of_masks", "sam/iou_predictions": "rows_of_iou"}
    model = behind(model, graph(_ALTERNATIVES, low=low), links, "answer/")
    links = {"alternatives": "logits", "size_too": "photo_size"}
    model = behind(model, native_photo_masks(side, "pred_masks"), links, "masks/")
    inputs = ["image_embeddings", _PHOTO_SIZE, "input_points", "input_labels"]
    return in_order(model, inputs, ["iou_scores", "pred_masks"])


def ports(contract: Contract) -> tuple[Port, ...]:
    """What inputs and outputs of both graphs mean."""
    side = contract.image_size
    (embeddings,) = contract.encoder_outputs
    size = "height and width of the photo that the encoder took, which the decoder needs for prompts and masks"
    labels = "1 foreground, 0 background, 2 and 3 a box's corners, -1 not a point, -10 ignored; no padding point"
    masks = f"mask logits of the three alternatives, the photo at the left top; a side over {side} is shrunk to {side}"
    return (
        Port(
            "pixel_values",
            (1, 3, "height", "width"),
            "float32",
            f"RGB, 0 to 255, of at most {MOST_SHRUNK * side} a side",
        ),
        embeddings,
        Port(_PHOTO_SIZE, (1, 2), "float32", size),
        Port("input_points", (1, "prompts", "points", 2), "float32", "x, y in the photo's pixels"),
        Port("input_labels", (1, "prompts", "points"), "int64", labels),
        Port("iou_scores", (1, "prompts", 3), "float32", "predicted IoU of each mask"),
        Port("pred_masks", (1, "prompts", 3, side, side), "float32", masks),
    )


def configurations(image_size: int, precision: str) -> dict[str, str]:
    """Texts of the two files beside the ``onnx`` folder, by name."""
    config: dict[str, Any] = {
        "model_type": "sam",
        "architectures": ["SamModel"],
        "transformers.js_config": {"dtype": DTYPES[precision]},
    }
    most = MOST_SHRUNK * image_size
    processor: dict[str, Any] = {
        "image_processor_type": "SamImageProcessor",
        "processor_class": "SamProcessor",
        "do_convert_rgb": True,
        "do_resize": False,
        "do_thumbnail": True,  # shrinks what is larger than `size`
        "size": {"height": most, "width": most},
        "resample": _RESAMPLE,
        "do_rescale": False,
        "do_normalize": False,
        "do_pad": False,
        "pad_size": {"height": image_size, "width": image_size},  # of `pred_masks`
    }
    texts = {"config.json": config, "preprocessor_config.json": processor}
    return {name: json.dumps(content, indent=2) + "\n" for name, content in texts.items()}
