"""Cut a decoder file in two, for many clicks on one photo: first what they mean, then the masks that are wanted.

Everything mode asks a thousand points and keeps the masks of a few hundred: the others need not be drawn, which is a
third of the work. Nor has it earlier masks to embed: the first step takes their maps, all zero, as an input.

The file draws by ``CELLS_AT_ONCE`` cells, so that what is in between stays in a core's cache; the second step
is the graph of one such part. The last step, which puts pixels in order, is then the host's.

Nothing is computed otherwise: the same nodes stand in two graphs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

CELLS_AT_ONCE = 512  # of the image that the decoder draws at a time

# Initializers of ``decoder.PromptDecoderOnnx``.
MASK_WEIGHT, UPSCALING = "mask_downscaling.weight", "output_upscaling.up1.weight"
FIRST_BIAS, SECOND_BIAS = "output_upscaling.up1.bias", "output_upscaling.up2.bias"
HAS_MASK, IOU, LOGITS = "has_mask_input", "iou_predictions", "low_res_masks"


@dataclass(frozen=True)
class TwoSteps:
    """Both graphs.

    Attributes:
        attend: image_embeddings, point_coords, point_labels and ``maps`` to IoU predictions, ``image``, ``kernels``.
        draw: some ``cells`` of one prompt's image and some of its ``kernels`` to ``logits``, see ``in_order``.
        maps: name of (B, some, HW), what the earlier masks are embedded by; zero without them.
        image: name of (B, HW, C) or (B * HW, C), what the prompts have made of the image.
        cells: name of (n, C), some of them.
        kernels: name of (B, 4, C'), a mask each.
        logits: name of (1, masks, cells * 16).
    """

    attend: ModelProto
    draw: ModelProto
    maps: str
    image: str
    cells: str
    kernels: str
    logits: str


def in_order(logits: NDArray[np.float32], grid: int) -> NDArray[np.float32]:
    """(masks, HW * 16) as ``OutputUpscalingOnnx`` has them - y, x, dy, dx, ey, ex - as (masks, 4 H, 4 W)."""
    steps = logits.reshape(-1, grid, grid, 2, 2, 2, 2).transpose(0, 1, 3, 5, 2, 4, 6)
    return np.ascontiguousarray(steps).reshape(-1, 4 * grid, 4 * grid)


def in_two_steps(model: ModelProto) -> TwoSteps | None:
    """Both halves of one of our decoders; None for one that is not cut so: quantised there, or an official one."""
    graph = model.graph
    readers: dict[str, list[NodeProto]] = {}
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    upscaling = [node for node in readers.get(UPSCALING, []) if node.op_type == "Gemm"]
    chosen = readers.get(HAS_MASK, [])
    while len(chosen) == 1 and chosen[0].op_type != "Mul":  # the flag is brought between 0 and 1 first
        chosen = readers.get(chosen[0].output[0], [])
    weights = [value for value in graph.initializer if value.name == MASK_WEIGHT]
    if (
        not upscaling
        or len(chosen) != 1
        or len(weights) != 1
        or {IOU, LOGITS} != {output.name for output in graph.output}
    ):
        return None

    # The file's product of one part is the last product before its logits; parts are laid side by side behind it.
    product = makers[LOGITS]
    while product.op_type in ("Reshape", "Transpose", "Concat"):
        product = makers[product.input[0]]
    if product.op_type != "MatMul":
        return None
    cells, kernels, maps, logits = upscaling[0].input[0], product.input[0], chosen[0].output[0], product.output[0]
    image = cells
    while makers[image].op_type in ("Reshape", "Split"):
        image = makers[image].input[0]

    inputs = ("image_embeddings", "point_coords", "point_labels")
    attend = _part(model, inputs, {maps: ("prompts", weights[0].dims[0], "positions")}, (IOU, image, kernels))
    draw = _part(model, (), {cells: ("cells", "channels"), kernels: ("one", "masks", "width")}, (logits,))
    if not _any_number_of_cells(draw):
        return None
    return TwoSteps(attend, draw, maps, image, cells, kernels, logits)


def _any_number_of_cells(draw: ModelProto) -> bool:
    """Let a graph that draws take a part of the cells: its shapes, of which some say how many there are."""
    values = {value.name: value for value in draw.graph.initializer}
    shapes = [values.get(node.input[1]) for node in draw.graph.node if node.op_type == "Reshape"]
    if len(shapes) != 2 or {FIRST_BIAS, SECOND_BIAS} - values.keys():
        return False
    # Each of the two steps makes two by two pixels of a cell or pixel, so many channels each.
    widths = [values[name].dims[0] // 4 for name in (FIRST_BIAS, SECOND_BIAS)]
    for shape, wanted in zip(shapes, ([-1, widths[0]], [1, -1, widths[1]]), strict=True):
        if shape is None:
            return False
        shape.CopyFrom(numpy_helper.from_array(np.array(wanted, np.int64), shape.name))
    return True


def _part(
    model: ModelProto,
    kept_inputs: Iterable[str],
    new_inputs: Mapping[str, tuple[str | int, ...]],
    outputs: tuple[str, ...],
) -> ModelProto:
    """The nodes that make some values; ``new_inputs`` are values that the host gives, with their axes."""
    graph = model.graph
    inputs = [value for value in graph.input if value.name in set(kept_inputs)]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in new_inputs.items()]
    given = {value.name for value in inputs}
    nodes: list[NodeProto] = []
    wanted = set(outputs)
    for node in reversed(graph.node):
        if not wanted & (set(node.output) - given):
            continue
        nodes.append(node)
        wanted |= set(node.input)
    known = {value.name: value for value in graph.output}
    part = GraphProto(name=graph.name)
    part.node.extend(reversed(nodes))
    part.input.extend(inputs)
    part.output.extend(
        known.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs
    )
    part.initializer.extend(value for value in graph.initializer if value.name in wanted)
    return helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
