"""Give the decoder the inputs and outputs of the official ONNX wrapper (``SamOnnxModel``, Apache-2.0).

Official: image_embeddings, point_coords, point_labels, mask_input, has_mask_input, orig_im_size ->
masks, iou_predictions, low_res_masks, with ``masks`` logits at the photo's own size. Apps written for the
official decoder can take this file in its place.
"""

import onnx
from onnx import compose, parser

from mobilesam_export.contract import Contract, Port
from mobilesam_export.targets.onnx.contracts.join import named

# Half-pixel bilinear up to the model frame, crop the padding, bilinear to the photo: pixel for pixel as in
# the official postprocessing. Of `logits`, `resized` (height and width in the frame) and `drawn_size`: `{drawn}`.
DRAWN = """
    logits_shape = Shape (logits)
    from_start = Constant <value_ints: ints = [0]> ()
    to_third = Constant <value_ints: ints = [2]> ()
    leading = Slice (logits_shape, from_start, to_third)
    frame_size = Constant <value_ints: ints = [{size}, {size}]> ()
    frame_shape = Concat <axis: int = 0> (leading, frame_size)
    full = Resize <BILINEAR> (logits, , , frame_shape)
    corner = Constant <value_ints: ints = [0, 0]> ()
    rows_and_columns = Constant <value_ints: ints = [2, 3]> ()
    cropped = Slice (full, corner, resized, rows_and_columns)
    drawn_shape = Concat <axis: int = 0> (leading, drawn_size)
    {drawn} = Resize <BILINEAR> (cropped, , , drawn_shape)
""".replace("BILINEAR", 'mode: string = "linear", coordinate_transformation_mode: string = "half_pixel"')
# The resized size is floor(size * S / longest + 0.5).
_UPSCALE = """
<ir_version: 8, opset_import: ["" : {opset}]>
upscale (float[n, c, low, low] logits, float[2] orig_im_size) => (float[n, c, height, width] masks)
{{
    frame = Constant <value_float: float = {size}.0> ()
    half = Constant <value_float: float = 0.5> ()
    longest = ReduceMax <keepdims: int = 0> (orig_im_size)
    scale = Div (frame, longest)
    scaled = Mul (orig_im_size, scale)
    rounded = Add (scaled, half)
    floored = Floor (rounded)
    resized = Cast <to: int = 7> (floored)
    drawn_size = Cast <to: int = 7> (orig_im_size)
    DRAWN
}}
""".replace("DRAWN", DRAWN)


def official_inputs(contract: Contract) -> tuple[Port, ...]:
    """Inputs of the official decoder, in its order."""
    return (
        *contract.decoder_inputs,
        Port("orig_im_size", (2,), "float32", "height and width of the photo in pixels, which masks will have"),
    )


def official_outputs(contract: Contract) -> tuple[Port, ...]:
    """Outputs of the official decoder, in its order."""
    low_res_masks, iou_predictions = contract.decoder_outputs
    shape = (*low_res_masks.shape[:2], "height", "width")
    meaning = (
        "mask logits at the photo's size, a row each of low_res_masks; a pixel is in the mask where they are above 0"
    )
    return (Port("masks", shape, "float32", meaning), iou_predictions, low_res_masks)


def with_official_contract(decoder: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """Append the upscaling to the photo's size to a decoder of ``contract``.

    Returns:
        a model with the official names, in the official order.
    """
    opset = next(entry.version for entry in decoder.opset_import if entry.domain in ("", "ai.onnx"))
    upscale = named(parser.parse_model(_UPSCALE.format(opset=opset, size=contract.image_size, drawn="masks")))
    upscale.ir_version = decoder.ir_version
    upscale = compose.add_prefix(upscale, "official/", rename_inputs=False, rename_outputs=False)
    outputs = official_outputs(contract)
    names = [port.name for port in outputs]
    merged = compose.merge_models(decoder, upscale, io_map=[("low_res_masks", "logits")], outputs=names)
    merged.graph.name, merged.graph.doc_string = decoder.graph.name, ""
    by_name = {value.name: value for value in merged.graph.output}
    del merged.graph.output[:]
    merged.graph.output.extend(by_name[name] for name in names)
    for dim, size in zip(merged.graph.output[0].type.tensor_type.shape.dim, outputs[0].shape, strict=True):
        if isinstance(size, str):  # in the contract's words, not the parser's
            dim.dim_param = size
        else:
            dim.dim_value = size
    assert [value.name for value in merged.graph.input] == [port.name for port in official_inputs(contract)]
    return merged
