"""Precision recipes for ONNX files.

- float32: as computed by the reference.
- float16: weights stored in float16, computed in float32. Half the download; ONNX Runtime widens them once,
  when it loads the file. CPUs gain nothing from float16 arithmetic here, so none is asked for.
- int8: the encoder's linear layers with int8 weights per channel and activations quantised on the fly; the
  rest float32. Convolutions stay float: quantised ones leave the runtime's blocked layout and gain nothing.
  The decoder is small and stays float32.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from mobilesam_export.chatter import without_log_of

PRECISIONS = ("float32", "float16", "int8")
_LINEAR = ("MatMul", "Gemm")
_SMALLEST_STORED_HALF = 256  # elements; smaller tensors are biases and constants whose size does not matter


IsExact = Callable[[str], bool]  # whether the constant of that name stays as it is


def apply_precision(
    model: onnx.ModelProto, precision: str, is_encoder: bool, is_exact: IsExact = lambda _: False
) -> onnx.ModelProto:
    """Apply a recipe of ``PRECISIONS`` to a float32 model; the model passed in may be changed."""
    if precision == "float16":
        return _store_half(model, is_exact)
    if precision == "int8" and is_encoder:
        return _quantise_linear_layers(model, is_exact)
    return model


def rounded_constants(model: onnx.ModelProto, precision: str, is_encoder: bool) -> list[str]:
    """Names of the constants of a float32 model that a recipe rounds."""
    if precision == "float16":
        return [tensor.name for tensor in model.graph.initializer if _fits_half(tensor)]
    if precision == "int8" and is_encoder:
        return [node.input[1] for node in _linear_layers(model)]
    return []


def _fits_half(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALLEST_STORED_HALF:
        return False
    return bool(np.abs(numpy_helper.to_array(tensor)).max() <= np.finfo(np.float16).max)


def _store_half(model: onnx.ModelProto, is_exact: IsExact) -> onnx.ModelProto:
    casts = []
    for tensor in model.graph.initializer:
        name = tensor.name
        if is_exact(name) or not _fits_half(tensor):
            continue
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}_widen", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _linear_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type in _LINEAR and node.input[1] in constants]


def _quantise_linear_layers(model: onnx.ModelProto, is_exact: IsExact) -> onnx.ModelProto:
    # The quantiser works on files, and advises a preparation on the root logger that our graphs have behind them.
    with tempfile.TemporaryDirectory() as folder, without_log_of(""):
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        onnx.save_model(model, source)
        exact = [node.name for node in _linear_layers(model) if is_exact(node.input[1])]
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(_LINEAR),
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*exact, *(f"{name}_MatMul" for name in exact)],  # as it renames Gemms before it looks
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load_model(target)
