"""Cut a decoder file in two, for many clicks on one photo: first what they mean, then the masks that are wanted.

Everything mode asks a thousand points and keeps the masks of a few hundred: the others need not be drawn, which is a
third of the work. And without mask input all prompts meet the same image until the first block has written on it; in
the file each has a copy of its own, since any of them may bring a mask.

Drawing goes cell by cell, so that it can be done in parts whose intermediate results stay in a core's cache: 13.3 ms
whole, 8.2 by 512 cells (one thread, S = 1024). The last step, which puts pixels in order, is then the host's.

Nothing is computed otherwise: the same nodes stand in two graphs, but for the embedded mask, whose place the learned
"no mask" takes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

NO_MASK = "mask_downscaling.project.bias"  # initializers of ``decoder.PromptDecoderOnnx``
MASK_PROJECT, UPSCALING = "mask_downscaling.project.weight", "output_upscaling.up1.weight"
FIRST_BIAS, SECOND_BIAS = "output_upscaling.up1.bias", "output_upscaling.up2.bias"
IOU, LOGITS = "iou_predictions", "low_res_masks"


@dataclass(frozen=True)
class TwoSteps:
    """Both graphs.

    Attributes:
        attend: image_embeddings, point_coords, point_labels to IoU predictions, ``image`` and ``kernels``.
        draw: some cells of one prompt's ``image`` and some of its ``kernels`` to ``logits``, see ``in_order``.
        image: name of (B * HW, C), what the prompts have made of the image.
        kernels: name of (B, 4, C'), a mask each.
        logits: name of (1, masks, cells * 16).
    """

    attend: ModelProto
    draw: ModelProto
    image: str
    kernels: str
    logits: str


CELLS_AT_ONCE = 512


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
    upscaling, project = (_only(readers, name, "Gemm") for name in (UPSCALING, MASK_PROJECT))
    if upscaling is None or project is None or {IOU, LOGITS} != {output.name for output in graph.output}:
        return None

    added = _only(readers, project.output[0], "Reshape")
    sum_with_image = None if added is None else _only(readers, added.output[0], "Add")
    product = makers[LOGITS]
    while product.op_type in ("Reshape", "Transpose"):
        product = makers[product.input[0]]
    if added is None or sum_with_image is None or product.op_type != "MatMul":
        return None
    image, kernels = upscaling.input[0], product.input[0]

    inputs = ("image_embeddings", "point_coords", "point_labels")
    attend = _part(model, inputs, (), (IOU, image, kernels), {added.output[0]: NO_MASK})
    logits = product.output[0]
    draw = _part(model, (), ((image, ("cells", "channels")), (kernels, ("one", "masks", "width"))), (logits,), {})
    if not _any_number_of_cells(draw):
        return None
    return TwoSteps(attend, draw, image, kernels, logits)


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


def _only(readers: dict[str, list[NodeProto]], name: str, kind: str) -> NodeProto | None:
    """The one node that reads a value, if it is of that kind."""
    found = readers.get(name, [])
    return found[0] if len(found) == 1 and found[0].op_type == kind else None


def _part(
    model: ModelProto,
    kept_inputs: Iterable[str],
    new_inputs: Iterable[tuple[str, tuple[str, ...]]],
    outputs: tuple[str, ...],
    replaced: dict[str, str],
) -> ModelProto:
    """The nodes that make some values; ``replaced`` names take another one's place."""
    graph = model.graph
    inputs = [value for value in graph.input if value.name in set(kept_inputs)]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in new_inputs]
    given = {value.name for value in inputs}
    nodes: list[NodeProto] = []
    wanted = set(outputs)
    for node in reversed(graph.node):
        if not wanted & (set(node.output) - given):
            continue
        copied = NodeProto()
        copied.CopyFrom(node)
        copied.ClearField("input")
        copied.input.extend(replaced.get(name, name) for name in node.input)
        nodes.append(copied)
        wanted |= set(copied.input)
    known = {value.name: value for value in graph.output}
    part = GraphProto(name=graph.name)
    part.node.extend(reversed(nodes))
    part.input.extend(inputs)
    part.output.extend(
        known.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs
    )
    part.initializer.extend(value for value in graph.initializer if value.name in wanted)
    return helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
