"""What a pair of written ONNX files says of itself."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from mobilesam_export.contract import Port, Written, common
from mobilesam_export.errors import ExportError


def read_written(encoder: Path, decoder: Path) -> Written:
    """Read ports and metadata from the files.

    Raises:
        ExportError: a file is no ONNX file.
    """
    first, second = _load(encoder), _load(decoder)
    decoder_inputs = _ports(second.graph.input)
    slots = next((port.shape[1] for port in decoder_inputs if port.name == "point_labels"), None)
    return Written(
        _ports(first.graph.input),
        _ports(first.graph.output),
        decoder_inputs,
        _ports(second.graph.output),
        slots if isinstance(slots, int) else None,
        common(_metadata(first), _metadata(second)),
    )


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise ExportError(f"{path} is damaged or no ONNX file; export it again with --overwrite") from error


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _ports(values: Iterable[Any]) -> tuple[Port, ...]:
    return tuple(
        Port(
            value.name,
            tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
            np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name,
            value.doc_string,
        )
        for value in values
    )
