"""Bring a graph of opset 20 to opset 17, which every engine reads.

Of what the exporter emits only few operators are newer: ``Gelu`` is of opset 20; ``Split`` (equal parts by
attribute), ``Pad`` (an optional input for axes) and the reductions (axes as an input) changed their form in 18.
Everything else is the same and the checker, run on the result, refuses what is not.
"""

import math

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from mobilesam_export.errors import ExportError

OPSET_BEFORE = 20  # the oldest with Gelu: replaced whole, it is spelled in our way and not in the exporter's
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")
_GELU_CONSTANTS = {"gelu_sqrt_2": math.sqrt(2), "gelu_one": 1.0, "gelu_half": 0.5}


def to_opset_17(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite the operators whose form changed, in place, and set the opset.

    Raises:
        ExportError: if an operator uses a feature that opset 17 lacks.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Pad" and len(node.input) > 3:
            raise ExportError("a Pad with axes has no form in ONNX opset 17; use opset 23")
        if node.op_type == "Split":
            kept = [attribute for attribute in node.attribute if attribute.name != "num_outputs"]
            if len(kept) != len(node.attribute) and len(node.input) > 1 and node.input[1]:
                raise ExportError("a Split by number and by sizes at once is invalid; this is a bug in the exporter")
            del node.attribute[:]
            node.attribute.extend(kept)  # without sizes, opset 17 splits into equal parts by the number of outputs
        if node.op_type in _REDUCTIONS and len(node.input) > 1:
            if node.input[1] not in constants:
                raise ExportError(f"a {node.op_type} over computed axes has no form in ONNX opset 17; use opset 23")
            kept = [attribute for attribute in node.attribute if attribute.name != "noop_with_empty_axes"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("axes", constants[node.input[1]].tolist())])
            del node.input[1:]
    _spell_gelu_out(model.graph)
    used = {name for node in model.graph.node for name in node.input}
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = 17
    model.ir_version = min(model.ir_version, 8)
    return model


def _spell_gelu_out(graph: onnx.GraphProto) -> None:
    """Write every exact ``Gelu`` as ``x * (1 + erf(x / sqrt(2))) * 0.5``.

    The order of the factors is the one that ONNX Runtime fuses again into one kernel (the other, ``x * (0.5 * (1 +
    erf))``, it does not: 300 of 1500 ms of the encoder), and that OpenCV's importer survives.
    """
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type != "Gelu":
            nodes.append(node)
            continue
        if any(attribute.name == "approximate" and attribute.s != b"none" for attribute in node.attribute):
            raise ExportError("a Gelu by tanh is not the reference's; this is a bug in the graph")
        (x,), (y,) = node.input, node.output
        scaled, erf, raised, product = (f"{y}/{step}" for step in ("scaled", "erf", "raised", "product"))
        nodes += [
            helper.make_node("Div", [x, "gelu_sqrt_2"], [scaled], scaled),
            helper.make_node("Erf", [scaled], [erf], erf),
            helper.make_node("Add", [erf, "gelu_one"], [raised], raised),
            helper.make_node("Mul", [x, raised], [product], product),
            helper.make_node("Mul", [product, "gelu_half"], [y], y),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in _GELU_CONSTANTS.items()
    )
