"""``SamModel`` of transformers.js, with the two configurations that it reads.

Its decoder takes P prompts on one photo: points of int64 labels 1, 0, -1 (SAM's "not a point") and -10 (ignored); the
padding point is the graph's to add. Labels 2 and 3 mean a box's corners here too: transformers.js sends ``input_boxes``
only to a graph that names it as an input, and then refuses prompts without a box.
"""

import json
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mobilesam_export.contract import EMBEDDING_CHANNELS, PIXEL_MEAN, PIXEL_STD, Contract, PointLabel, Port
from mobilesam_export.targets.onnx.contracts.encoders import normalised_encoder
from mobilesam_export.targets.onnx.contracts.join import before, behind, graph, in_order, renamed
from mobilesam_export.targets.onnx.contracts.official import PADDING
from mobilesam_export.targets.onnx.decoder import ImagePeOnnx

# Of its files, by our precisions; transformers.js has more names, and takes q8 in a browser if it is told nothing.
SUFFIXES = {"float32": "", "float16": "_fp16", "int8": "_quantized"}
DTYPES = {"float32": "fp32", "float16": "fp16", "int8": "q8"}
# Lanczos. SAM's own is bilinear (2), which in Node moves the photo by up to a pixel of the frame; a browser reads none.
_RESAMPLE = 1

_POINTS = """
prompt (float[1, prompts, points, 2] input_points, int64[1, prompts, points] input_labels)
    => (float[prompts, slots, 2] coords, float[prompts, slots] labels,
        float[prompts, 1, {low}, {low}] mask, float[1] has)
{{
    photo_axis = Constant <value_ints: ints = [0]> ()
    given_coords = Squeeze (input_points, photo_axis)
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
    => (float[1, prompts, 3] iou_scores, float[1, prompts, 3, {low}, {low}] pred_masks)
{{
    first = Constant <value_ints: ints = [1]> ()
    end = Constant <value_ints: ints = [4]> ()
    photo_axis = Constant <value_ints: ints = [0]> ()
    masks = Slice (rows_of_masks, first, end, first)
    iou = Slice (rows_of_iou, first, end, first)
    iou_scores = Unsqueeze (iou, photo_axis)
    pred_masks = Unsqueeze (masks, photo_axis)
}}
"""
_POSITIONS = "image_positional_embeddings"
_NOT_READ = "the image encoder's second output; the decoder makes it itself and does not read this"


def vision_encoder(encoder: ModelProto, image_size: int, image_pe: ImagePeOnnx) -> ModelProto:
    """The encoder, and as a second output the positions that a SAM decoder adds to the image."""
    model = normalised_encoder(encoder, image_size, "pixel_values")
    rows, columns = image_pe.row_angles, image_pe.column_angles  # (H, 1, C/2), (1, W, C/2)
    arrays = {
        "positions/rows": rows.permute(2, 0, 1)[None].numpy(),
        "positions/columns": columns.permute(2, 0, 1)[None].numpy(),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()
    )
    model.graph.node.extend(
        [
            helper.make_node("Add", list(arrays), ["positions/angles"]),
            helper.make_node("Sin", ["positions/angles"], ["positions/sin"]),
            helper.make_node("Cos", ["positions/angles"], ["positions/cos"]),
            helper.make_node("Concat", ["positions/sin", "positions/cos"], [_POSITIONS], axis=1),
        ]
    )
    shape = (1, EMBEDDING_CHANNELS, image_size // 16, image_size // 16)
    model.graph.output.append(helper.make_tensor_value_info(_POSITIONS, TensorProto.FLOAT, shape))
    return model


def prompt_encoder_mask_decoder(decoder: ModelProto, contract: Contract) -> ModelProto:
    """Give a decoder of ``contract``, with four masks and any number of prompts, this form."""
    low = contract.low_res_size
    names = ("point_coords", "point_labels", "mask_input", "has_mask_input", "low_res_masks", "iou_predictions")
    inner = renamed(decoder, {name: f"sam/{name}" for name in names})
    labels = {"padding": float(PointLabel.PADDING), "absent": float(PointLabel.ABSENT), "least": -1.0}
    links = dict(zip(("coords", "labels", "mask", "has"), (f"sam/{name}" for name in names[:4]), strict=True))
    model = before(graph(_POINTS.replace("STEPS", PADDING), low=low, **labels), inner, links, "prompt/")
    links = {"sam/low_res_masks": "rows_of_masks", "sam/iou_predictions": "rows_of_iou"}
    model = behind(model, graph(_ALTERNATIVES, low=low), links, "answer/")
    shape = (1, EMBEDDING_CHANNELS, contract.grid_size, contract.grid_size)
    model.graph.input.append(helper.make_tensor_value_info(_POSITIONS, TensorProto.FLOAT, shape))
    inputs = ["image_embeddings", _POSITIONS, "input_points", "input_labels"]
    return in_order(model, inputs, ["iou_scores", "pred_masks"])


def ports(contract: Contract) -> tuple[Port, ...]:
    """What inputs and outputs of both graphs mean."""
    side, low = contract.image_size, contract.low_res_size
    (embeddings,) = contract.encoder_outputs
    points = f"x, y in model-frame pixels: the photo's pixels times the resize to {side}"
    labels = "1 foreground, 0 background, 2 and 3 a box's corners, -1 not a point, -10 ignored; no padding point"
    frame = f"RGB, longest side {side}, normalised by mean and std, then padded with zeros at right and bottom"
    masks = f"mask logits of the three alternatives; resize to {side}, crop the padding, resize to the photo"
    return (
        Port("pixel_values", (1, 3, side, side), "float32", frame),
        embeddings,
        Port(_POSITIONS, embeddings.shape, "float32", _NOT_READ),
        Port("input_points", (1, "prompts", "points", 2), "float32", points),
        Port("input_labels", (1, "prompts", "points"), "int64", labels),
        Port("iou_scores", (1, "prompts", 3), "float32", "predicted IoU of each mask"),
        Port("pred_masks", (1, "prompts", 3, low, low), "float32", masks),
    )


def configurations(image_size: int, precision: str) -> dict[str, str]:
    """Texts of the two files beside the ``onnx`` folder, by name."""
    config: dict[str, Any] = {
        "model_type": "sam",
        "architectures": ["SamModel"],
        "transformers.js_config": {"dtype": DTYPES[precision]},
    }
    processor: dict[str, Any] = {
        "image_processor_type": "SamImageProcessor",
        "processor_class": "SamProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": image_size},
        "resample": _RESAMPLE,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [mean / 255 for mean in PIXEL_MEAN],
        "image_std": [std / 255 for std in PIXEL_STD],
        "do_pad": True,
        "pad_size": {"height": image_size, "width": image_size},
    }
    texts = {"config.json": config, "preprocessor_config.json": processor}
    return {name: json.dumps(content, indent=2) + "\n" for name, content in texts.items()}
