"""Read, edit and write TFLite files: a thin layer over the FlatBuffer schema that comes with ai-edge-litert.

The converter decides much that costs later: axes beyond the fourth, float32 constants that no recipe
reaches. Editing the finished graph mends what no PyTorch spelling does.
"""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from mobilesam_export.errors import ExportError

EXACT = "exact"  # prefix of the names of constants that stay float32 in every precision
OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
TENSOR_DTYPES: dict[int, np.dtype[Any]] = {
    schema.TensorType.FLOAT32: np.dtype(np.float32),
    schema.TensorType.FLOAT16: np.dtype(np.float16),
    schema.TensorType.INT32: np.dtype(np.int32),
    schema.TensorType.INT64: np.dtype(np.int64),
    schema.TensorType.INT16: np.dtype(np.int16),
    schema.TensorType.INT8: np.dtype(np.int8),
    schema.TensorType.UINT8: np.dtype(np.uint8),
    schema.TensorType.BOOL: np.dtype(np.bool_),
}
TENSOR_TYPES = {dtype: code for code, dtype in TENSOR_DTYPES.items()}


def read_model(path: Path) -> Any:
    """Parse a TFLite file into the schema's mutable ``ModelT``.

    Raises:
        ExportError: missing, truncated or another kind of file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read ({error.strerror}); export it again with --target tflite") from error
    if content[4:8] != b"TFL3":
        raise ExportError(f"{path} is no TFLite file; export it again with --target tflite")
    try:
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        for buffer in model.buffers:
            if buffer.offset > 1:  # the quantiser puts constants behind the FlatBuffer
                buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        return model
    except Exception as error:  # struct, index and value errors of the generated reader: all mean a broken file
        raise ExportError(f"{path} is truncated or damaged ({error}); export it again with --target tflite") from error


def pack(model: Any) -> bytes:
    """Serialise a ``ModelT``."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def only(model: Any, signature: Any) -> Any:
    """A shallow copy of a ``ModelT`` with one signature's subgraph."""
    single, alone = copy.copy(model), copy.copy(signature)
    single.subgraphs, alone.subgraphIndex = [model.subgraphs[signature.subgraphIndex]], 0
    single.signatureDefs = [alone]
    return single


def write_model(model: Any, path: Path) -> Path:
    """Write a ``ModelT`` whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_bytes(pack(model))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def set_metadata(model: Any, values: Mapping[str, str]) -> None:
    """Store named strings in the file's metadata table; an existing name is replaced."""
    kept = [entry for entry in model.metadata or [] if entry.name.decode() not in values]
    for name, value in values.items():
        entry = schema.MetadataT()
        entry.name, entry.buffer = name.encode(), add_buffer(model, np.frombuffer(value.encode(), np.uint8))
        kept.append(entry)
    model.metadata = kept


def get_metadata(model: Any) -> dict[str, str]:
    """The named strings of the metadata table, the converter's own included."""
    names = {entry.name.decode(): model.buffers[entry.buffer].data for entry in model.metadata or []}
    return {name: bytes(data).decode(errors="replace") for name, data in names.items() if data is not None}


def add_buffer(model: Any, array: NDArray[Any]) -> int:
    """Append a constant's bytes; returns the buffer's index."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


class Subgraph:
    """One signature's operators and tensors, with the edits that the target's passes need."""

    def __init__(self, model: Any, index: int) -> None:
        self.model, self.graph = model, model.subgraphs[index]

    def name(self, operator: Any) -> str:
        """An operator's builtin name, such as CONV_2D."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        name: str = OPERATOR_NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
        return name

    def shape(self, tensor: int) -> tuple[int, ...]:
        """A tensor's shape, () for a scalar."""
        shape = self.graph.tensors[tensor].shape
        return () if shape is None else tuple(int(side) for side in shape)

    def constant(self, tensor: int) -> NDArray[Any] | None:
        """A constant tensor's value, or None for one computed at run time."""
        entry = self.graph.tensors[tensor]
        data = self.model.buffers[entry.buffer].data
        if data is None or tensor < 0:
            return None
        values: NDArray[Any] = np.frombuffer(bytes(data), TENSOR_DTYPES[entry.type])
        return values.reshape(self.shape(tensor))

    def add_tensor(self, name: str, shape: Iterable[int], dtype: np.dtype[Any]) -> int:
        """Append a run-time tensor; returns its index."""
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.buffer = name.encode(), TENSOR_TYPES[dtype], 0
        tensor.shape, tensor.hasRank = np.array(list(shape), np.int32), True
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add_constant(self, name: str, array: NDArray[Any]) -> int:
        """Append a constant tensor; returns its index."""
        tensor = self.add_tensor(name, array.shape, array.dtype)
        self.graph.tensors[tensor].buffer = add_buffer(self.model, array)
        return tensor

    def operator(self, name: str, inputs: list[int], outputs: list[int], options: Any = None, version: int = 1) -> Any:
        """Make an operator; the caller puts it into the list, after its producers."""
        code = getattr(schema.BuiltinOperator, name)
        codes = self.model.operatorCodes
        fits = (i for i, entry in enumerate(codes) if entry.builtinCode == code and entry.version >= version)
        index = next(fits, None)
        if index is None:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), version
            codes.append(entry)
            index = len(codes) - 1
        operator = schema.OperatorT()
        operator.opcodeIndex = index
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        if options is not None:
            operator.builtinOptions = options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        return operator

    def producers(self) -> dict[int, Any]:
        """The operator behind every computed tensor."""
        return {int(output): operator for operator in self.graph.operators for output in operator.outputs}

    def consumers(self) -> dict[int, list[Any]]:
        """The operators that read each tensor; a graph output has none."""
        readers: dict[int, list[Any]] = {}
        for operator in self.graph.operators:
            for tensor in operator.inputs:
                readers.setdefault(int(tensor), []).append(operator)
        return readers

    def replace_uses(self, old: int, new: int) -> None:
        """Let every reader of ``old`` read ``new``; a graph output must stay as it is."""
        for operator in self.graph.operators:
            operator.inputs = np.where(np.asarray(operator.inputs) == old, new, operator.inputs).astype(np.int32)


def prune(model: Any) -> None:
    """Drop operators whose results nobody reads, then tensors and buffers without users; give tensors unique names."""
    for graph in model.subgraphs:
        read = {int(tensor) for tensor in graph.outputs}
        live = []
        for operator in reversed(graph.operators):
            if any(int(output) in read for output in operator.outputs):
                read.update(int(tensor) for tensor in operator.inputs)
                live.append(operator)
        graph.operators = live[::-1]
        read |= {int(tensor) for tensor in graph.inputs} | {int(out) for op in live for out in op.outputs}
        kept = sorted(tensor for tensor in read if tensor >= 0)
        new = {old: index for index, old in enumerate(kept)} | {-1: -1}
        graph.tensors = [graph.tensors[old] for old in kept]
        for owner in (graph, *graph.operators):
            owner.inputs = np.array([new[int(tensor)] for tensor in owner.inputs], np.int32)
            owner.outputs = np.array([new[int(tensor)] for tensor in owner.outputs], np.int32)
        for signature in model.signatureDefs or []:
            if model.subgraphs[signature.subgraphIndex] is graph:
                for port in (*signature.inputs, *signature.outputs):
                    port.tensorIndex = new[port.tensorIndex]
    seen: set[bytes] = set()
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        base, count = tensor.name, 1
        while tensor.name in seen:  # the quantiser insists
            tensor.name, count = base + f"_{count}".encode(), count + 1
        seen.add(tensor.name)
    used = {0} | {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    renumbered = {old: index for index, old in enumerate(sorted(used))}
    model.buffers = [model.buffers[old] for old in sorted(used)]
    for owner in (*(tensor for graph in model.subgraphs for tensor in graph.tensors), *(model.metadata or [])):
        owner.buffer = renumbered[owner.buffer]
