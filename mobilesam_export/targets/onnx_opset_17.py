"""Bring a graph of opset 18 to opset 17, for ONNX Runtime before 1.14 and its kin.

Of what the exporter emits only three operators changed their form in 18: ``Split`` (equal parts by attribute),
``Pad`` (an optional input for axes) and the reductions (axes as an input). Everything else is the same and the
checker, run on the result, refuses what is not.
"""

import onnx
from onnx import helper, numpy_helper

from mobilesam_export.errors import ExportError

_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")


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
    used = {name for node in model.graph.node for name in node.input}
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = 17
    model.ir_version = min(model.ir_version, 8)
    return model
