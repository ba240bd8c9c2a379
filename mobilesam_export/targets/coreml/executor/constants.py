"""Decode the constants of an ML Program: immediate values, entries of the weight blob, and compressed weights.

The weight blob is a 64-byte header followed by 64-byte metadata records, each pointing at its data
(coremltools documents the layout in mlmodel/src/MILBlob/Blob/StorageFormat.hpp). Elements narrower than a
byte are packed from the least significant bit upwards.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.errors import ExportError

Array = NDArray[Any]

_SENTINEL = 0xDEADBEEF
_METADATA = struct.Struct("<IIQQ")  # sentinel, data type, size in bytes, offset of the data

# MIL type name -> (numpy type that holds one element, bits of one stored element)
ELEMENT_TYPES: dict[str, tuple[type[np.generic], int]] = {
    "BOOL": (np.bool_, 8),
    "FLOAT16": (np.float16, 16),
    "FLOAT32": (np.float32, 32),
    "FLOAT64": (np.float64, 64),
    "INT8": (np.int8, 8),
    "INT16": (np.int16, 16),
    "INT32": (np.int32, 32),
    "INT64": (np.int64, 64),
    "INT4": (np.int8, 4),
    "UINT8": (np.uint8, 8),
    "UINT16": (np.uint16, 16),
    "UINT32": (np.uint32, 32),
    "UINT64": (np.uint64, 64),
    "UINT1": (np.uint8, 1),
    "UINT2": (np.uint8, 2),
    "UINT3": (np.uint8, 3),
    "UINT4": (np.uint8, 4),
    "UINT6": (np.uint8, 6),
}


class WeightBlob:
    """A weight file, memory-mapped; ``read`` checks each record before it trusts it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise ExportError(f"the weight blob {path} is missing; copy the whole .mlpackage folder or export it again")
        if path.stat().st_size < 64:
            raise ExportError(f"the weight blob {path} is truncated; copy it again or export it again")
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def read(self, offset: int, element: str, shape: tuple[int, ...]) -> Array:
        """One constant of MIL type ``element``; ``offset`` is that of its metadata record."""
        data_type, bits = ELEMENT_TYPES[element]
        count = int(np.prod(shape, dtype=np.int64))
        size = (count * bits + 7) // 8
        if offset + _METADATA.size > len(self._data):
            raise self._truncated(offset)
        sentinel, _, stored_size, start = _METADATA.unpack_from(self._data, offset)
        if sentinel != _SENTINEL or stored_size < size:
            raise ExportError(f"the weight blob {self.path} has no record of {size} bytes at {offset}; export it again")
        if start + size > len(self._data):
            raise self._truncated(start + size)
        raw = np.frombuffer(self._data, np.uint8, size, start)
        return _elements(raw, data_type, bits, count, element.startswith("INT")).reshape(shape)

    def _truncated(self, needed: int) -> ExportError:
        return ExportError(
            f"the weight blob {self.path} is truncated: {len(self._data)} bytes, expected at least {needed}; "
            "copy it again or export it again"
        )


def _elements(raw: NDArray[np.uint8], data_type: type[np.generic], bits: int, count: int, signed: bool) -> Array:
    """Reinterpret stored bytes as ``count`` elements, unpacking those narrower than a byte."""
    if bits >= 8:
        whole: Array = raw.view(data_type)[:count]
        return whole
    spread = np.unpackbits(raw, bitorder="little")[: count * bits].reshape(count, bits)
    values = (spread << np.arange(bits, dtype=np.uint8)).sum(axis=1).astype(np.int16)
    if signed:
        values = np.where(values >= 1 << (bits - 1), values - (1 << bits), values)
    elements: Array = values.astype(data_type)
    return elements


def unpack_indices(packed: Array, bits: int, count: int) -> Array:
    """Unpack the little-endian bit fields of an iOS 16 palette or mask."""
    return _elements(np.ascontiguousarray(packed).view(np.uint8), np.uint8, bits, count, signed=False)


def element_name(tensor_type: Any) -> str:
    """MIL name of a tensor type's elements, such as ``FLOAT16``."""
    from coremltools.proto import MIL_pb2

    return str(MIL_pb2.DataType.Name(tensor_type.dataType))


def static_shape(tensor_type: Any) -> tuple[int | None, ...]:
    """Declared shape; a flexible dimension is None."""
    return tuple(
        int(dimension.constant.size) if dimension.WhichOneof("dimension") == "constant" else None
        for dimension in tensor_type.dimensions
    )


def decode_value(value: Any, blob_of: Any) -> Array | str | list[str]:
    """Decode one MIL ``Value``: a tensor as an array (rank 0 included), a string, or a list of strings.

    Args:
        value: the protobuf ``Value``.
        blob_of: gives the ``WeightBlob`` of a stored file name.
    """
    tensor_type = value.type.tensorType
    element = element_name(tensor_type)
    shape = tuple(size or 0 for size in static_shape(tensor_type))
    if value.WhichOneof("value") == "blobFileValue":
        stored: Array = blob_of(value.blobFileValue.fileName).read(value.blobFileValue.offset, element, shape)
        return stored
    tensor = value.immediateValue.tensor
    field = tensor.WhichOneof("value")
    values = getattr(tensor, field).values if field else b""
    if field == "strings":
        return str(values[0]) if shape == () else [str(text) for text in values]
    data_type, bits = ELEMENT_TYPES[element]
    if field == "bytes":
        count = int(np.prod(shape, dtype=np.int64))
        return _elements(np.frombuffer(values, np.uint8), data_type, bits, count, element.startswith("INT")).reshape(
            shape
        )
    return np.array(values, dtype=data_type).reshape(shape)


def decode_compressed(kind: str, inputs: dict[str, Any]) -> Array:
    """Expand a ``constexpr_*`` operation, as Core ML does when it loads the package.

    Raises:
        KeyError: the kind is not known here.
    """
    return _DECODERS[kind](inputs)


def _affine_dequantize(inputs: dict[str, Any]) -> Array:
    data, scale = inputs["quantized_data"], inputs["scale"]
    along_axis = [1] * data.ndim
    along_axis[int(inputs["axis"])] = -1

    def spread(parameter: Array) -> Array:
        return parameter.reshape(along_axis) if parameter.ndim else parameter

    centred = data.astype(np.float32) - spread(inputs["zero_point"]).astype(np.float32)
    expanded: Array = (centred * spread(scale).astype(np.float32)).astype(scale.dtype)
    return expanded


def _blockwise_shift_scale(inputs: dict[str, Any]) -> Array:
    data, scale, offset = inputs["data"], inputs["scale"], inputs.get("offset")
    centred = data.astype(np.float32)
    if offset is not None:
        centred = centred - _repeat_blocks(offset, data.shape).astype(np.float32)
    expanded: Array = (centred * _repeat_blocks(scale, data.shape).astype(np.float32)).astype(scale.dtype)
    return expanded


def _lut_to_dense(inputs: dict[str, Any]) -> Array:
    lut, indices = inputs["lut"], inputs["indices"]
    if "shape" in inputs:  # iOS 16: one table, packed indices
        shape = tuple(int(size) for size in inputs["shape"])
        bits = int(np.log2(lut.size))
        dense: Array = lut[unpack_indices(indices, bits, int(np.prod(shape)))].reshape(shape)
        return dense
    # iOS 18: one table a block, lut is (*blocks, palette, vector)
    if lut.shape[-1] != 1:
        raise ExportError("got a vector palette, expected scalar palettes; palettize with cluster_dim=1")
    tables = lut[..., 0]
    for axis, size in enumerate(indices.shape):
        tables = np.repeat(tables, size // tables.shape[axis], axis=axis)
    chosen: Array = np.take_along_axis(tables, indices[..., None].astype(np.int64), axis=-1)
    return chosen[..., 0]


def _sparse_to_dense(inputs: dict[str, Any]) -> Array:
    shape = tuple(int(size) for size in inputs["shape"])
    dense = np.zeros(int(np.prod(shape)), dtype=inputs["nonzero_data"].dtype)
    dense[unpack_indices(inputs["mask"], 1, dense.size).astype(bool)] = inputs["nonzero_data"]
    return dense.reshape(shape)


def _cast(inputs: dict[str, Any]) -> Array:
    result: Array = inputs["source_val"].astype({"fp16": np.float16, "fp32": np.float32}[inputs["output_dtype"]])
    return result


def _repeat_blocks(parameter: Array, shape: tuple[int, ...]) -> Array:
    for axis, size in enumerate(shape):
        parameter = np.repeat(parameter, size // parameter.shape[axis], axis=axis)
    return parameter


_DECODERS = {
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
    "constexpr_lut_to_dense": _lut_to_dense,
    "constexpr_sparse_to_dense": _sparse_to_dense,
    "constexpr_cast": _cast,
}
