"""Give the decoder the inputs and outputs of the official ONNX wrapper (``SamOnnxModel``, Apache-2.0).

Official: image_embeddings, point_coords, point_labels, mask_input, has_mask_input, orig_im_size ->
masks, iou_predictions, low_res_masks, with ``masks`` logits at the photo's own size. Apps written for the
official decoder can take this file in its place.
"""

import onnx
from onnx import compose, parser

from mobilesam_export.contract import Contract

# Half-pixel bilinear up to the model frame, crop the padding, bilinear to the photo: pixel for pixel as in
# the official postprocessing, whose resized size is floor(size * S / longest + 0.5).
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
    original = Cast <to: int = 7> (orig_im_size)
    shape = Shape (logits)
    zero = Constant <value_ints: ints = [0]> ()
    two = Constant <value_ints: ints = [2]> ()
    starts = Constant <value_ints: ints = [0, 0]> ()
    axes = Constant <value_ints: ints = [2, 3]> ()
    square = Constant <value_ints: ints = [{size}, {size}]> ()
    leading = Slice (shape, zero, two)
    frame_shape = Concat <axis: int = 0> (leading, square)
    full = Resize <{bilinear}> (logits, , , frame_shape)
    cropped = Slice (full, starts, resized, axes)
    photo_shape = Concat <axis: int = 0> (leading, original)
    masks = Resize <{bilinear}> (cropped, , , photo_shape)
}}
"""
_BILINEAR = 'mode: string = "linear", coordinate_transformation_mode: string = "half_pixel"'


def with_official_contract(decoder: onnx.ModelProto, image_size: int) -> onnx.ModelProto:
    """Append the upscaling to the photo's size to a decoder of ``contract.Contract``.

    Returns:
        a model with the official names, in the official order.
    """
    opset = next(entry.version for entry in decoder.opset_import if entry.domain in ("", "ai.onnx"))
    upscale = parser.parse_model(_UPSCALE.format(opset=opset, size=image_size, bilinear=_BILINEAR))
    upscale.ir_version = decoder.ir_version
    upscale = compose.add_prefix(upscale, "official/", rename_inputs=False, rename_outputs=False)
    merged = compose.merge_models(
        decoder,
        upscale,
        io_map=[("low_res_masks", "logits")],
        outputs=["masks", "iou_predictions", "low_res_masks"],
    )
    by_name = {value.name: value for value in merged.graph.output}
    del merged.graph.output[:]
    merged.graph.output.extend(by_name[name] for name in ("masks", "iou_predictions", "low_res_masks"))
    names = [port.name for port in Contract().decoder_inputs]
    assert [value.name for value in merged.graph.input] == [*names, "orig_im_size"]
    return merged
