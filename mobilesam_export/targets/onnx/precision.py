"""Precision recipes for ONNX files.

- float32: as computed by the reference.
- float16: weights stored in float16, computed in float32. Half the download; ONNX Runtime widens them once,
  when it loads the file. CPUs gain nothing from float16 arithmetic here, so none is asked for.
- int8: the encoder's linear layers with int8 weights per channel and activations quantised on the fly; the
  rest float32. Convolutions stay float: quantised ones leave the runtime's blocked layout and gain nothing.
  The decoder is small and stays float32.
"""

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from mobilesam_export.chatter import without_log_of

PRECISIONS = ("float32", "float16", "int8")
_SMALLEST_STORED_HALF = 256  # elements; smaller tensors are biases and constants whose size does not matter


def apply_precision(model: onnx.ModelProto, precision: str, is_encoder: bool) -> onnx.ModelProto:
    """Apply a recipe of ``PRECISIONS`` to a float32 model; the model passed in may be changed."""
    if precision == "float16":
        return _store_half(model)
    if precision == "int8" and is_encoder:
        return _quantise_linear_layers(model)
    return model


def _store_half(model: onnx.ModelProto) -> onnx.ModelProto:
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALLEST_STORED_HALF:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}_widen", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _quantise_linear_layers(model: onnx.ModelProto) -> onnx.ModelProto:
    # The quantiser works on files, and advises a preparation on the root logger that our graphs have behind them.
    with tempfile.TemporaryDirectory() as folder, without_log_of(""):
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        onnx.save_model(model, source)
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load_model(target)
