"""The operators of a written ONNX file, for ``npu_lint``."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from mobilesam_export.npu_lint import Operator, Tensor


def operators_of(path: Path) -> Iterator[Operator]:
    """The operators with the shapes that ONNX infers; how many axes is known where sizes are not."""
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    graph = model.graph
    known = {
        value.name: Tensor(
            tuple(dim.dim_param or int(dim.dim_value) for dim in value.type.tensor_type.shape.dim)
            if value.type.tensor_type.HasField("shape")
            else None,
            _dtype(value.type.tensor_type.elem_type),
        )
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    known |= {
        constant.name: Tensor(tuple(constant.dims), _dtype(constant.data_type), constant=True)
        for constant in graph.initializer
    }
    for node in graph.node:
        if node.op_type == "Constant":
            known[node.output[0]] = Tensor(None, known[node.output[0]].dtype, constant=True)
    unknown = Tensor(None, "unknown")
    for node in graph.node:
        if node.op_type != "Constant":
            inputs, outputs = (
                tuple(known.get(name, unknown) for name in names if name) for names in (node.input, node.output)
            )
            yield Operator(node.op_type, inputs, outputs)


def _dtype(code: int) -> str:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(code)).name if code else "unknown"
