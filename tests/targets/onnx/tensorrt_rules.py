"""What NVIDIA's parser of TensorRT 10 says it takes, asked of a file; no GPU is here to build an engine.

Rules and names are those of the operator matrix that ONNX-TensorRT 10.1 publishes (docs/operators.md, Apache-2.0).
"""

import onnx
from onnx import TensorProto

LATEST_OPSET = 20
TAKEN = {
    "Abs", "Add", "Cast", "Clip", "Concat", "Constant", "Conv", "Cos", "Div", "Equal", "Erf", "Exp", "Expand",
    "Floor", "Gather", "Gemm", "LayerNormalization", "MatMul", "Max", "Mul", "Not", "Pad", "Pow", "ReduceMax",
    "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Shape", "Sin", "Slice", "Softmax", "Split", "Sqrt",
    "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze", "Where",
}  # fmt: skip
CONSTANT_INPUT = {"ReduceMax": 1, "ReduceMean": 1, "ReduceSum": 1, "Slice": 3, "Squeeze": 1, "Unsqueeze": 1}
ABOUT_SHAPES = {
    "Add", "Cast", "Concat", "Constant", "Gather", "Max", "Mul", "Reshape", "Shape", "Slice", "Squeeze", "Unsqueeze",
}  # fmt: skip


def against_the_rules(model: onnx.ModelProto) -> list[str]:
    """What the parser refuses, or computes in 64-bit integers that is no shape."""
    model = onnx.shape_inference.infer_shapes(model)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    found = [] if model.opset_import[0].version <= LATEST_OPSET else [f"opset {model.opset_import[0].version}"]
    for node in model.graph.node:
        if node.op_type not in TAKEN:
            found.append(f"{node.op_type} is not taken")
        place = CONSTANT_INPUT.get(node.op_type)
        if place is not None and len(node.input) > place and node.input[place] not in constants:
            found.append(f"{node.op_type}'s input {place} is no initializer")
        if node.op_type == "LayerNormalization" and len(node.output) > 1:
            found.append("LayerNormalization has more outputs than its first")
        if node.op_type not in ABOUT_SHAPES and any(kinds.get(name) == TensorProto.INT64 for name in node.output):
            found.append(f"{node.op_type} gives 64-bit integers")
    return found
