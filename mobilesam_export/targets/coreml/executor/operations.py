"""Read the operations of an ML Program's function, its constants decoded, out of the protobuf specification."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreml.executor.constants import (
    WeightBlob,
    decode_compressed,
    decode_value,
    element_name,
    static_shape,
)
from mobilesam_export.targets.coreml.executor.package import Package


@dataclass(frozen=True)
class TensorType:
    """Declared element type (``FLOAT16`` ...) and shape; None for a flexible dimension."""

    element: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Reference:
    """An argument computed by an earlier operation, or an input of the function."""

    name: str


@dataclass(frozen=True)
class Operation:
    """One operation that does work at run time.

    ``arguments`` maps MIL's parameter names to a ``Reference``, a decoded constant, or a list of either;
    ``outputs`` are (name, type) pairs; ``location`` says where it stands, for error messages.
    """

    kind: str
    name: str
    arguments: dict[str, Any]
    outputs: tuple[tuple[str, TensorType], ...]
    location: str


@dataclass(frozen=True)
class FunctionBody:
    """One function of a program: typed inputs, operations in order, names of the outputs."""

    inputs: dict[str, TensorType]
    operations: tuple[Operation, ...]
    output_names: tuple[str, ...]
    constants: dict[str, Any]
    constant_types: dict[str, TensorType]


def read_function(package: Package, name: str = "main") -> FunctionBody:
    """Decode one function of an opened package.

    Raises:
        ExportError: there is no such function, or a constant cannot be read.
    """
    functions = package.spec.mlProgram.functions
    if name not in functions:
        raise ExportError(f"{package.path} has no function {name!r}, expected one of {sorted(functions)}")
    function = functions[name]
    block = function.block_specializations[function.opset]
    blob_of = _blob_opener(package)
    constants: dict[str, Any] = {}
    constant_types: dict[str, TensorType] = {}
    operations = []
    for number, op in enumerate(block.operations):
        label = str(op.attributes["name"].immediateValue.tensor.strings.values[0]) if "name" in op.attributes else "?"
        location = f"operation {number} of {len(block.operations)} in {name} of {package.path.name}"
        outputs = tuple((output.name, _tensor_type(output.type)) for output in op.outputs)
        if op.type == "const":
            constants[outputs[0][0]] = decode_value(op.attributes["val"], blob_of)
            constant_types[outputs[0][0]] = outputs[0][1]
        elif op.type.startswith("constexpr_"):
            try:
                constants[outputs[0][0]] = decode_compressed(op.type, _raw_arguments(op, constants, blob_of))
            except KeyError as error:
                raise ExportError(
                    f"got compressed constant {label!r} of kind {op.type} ({location}), expected a kind that the "
                    "executor knows; choose another precision"
                ) from error
            constant_types[outputs[0][0]] = outputs[0][1]
        else:
            arguments = {key: _bind(argument, constants, blob_of) for key, argument in op.inputs.items()}
            operations.append(Operation(op.type, label, arguments, outputs, location))
    inputs = {named.name: _tensor_type(named.type) for named in function.inputs}
    return FunctionBody(inputs, tuple(operations), tuple(block.outputs), constants, constant_types)


def references(operation: Operation) -> Iterator[str]:
    """Names of the values that an operation reads."""
    for argument in operation.arguments.values():
        for item in argument if isinstance(argument, list) else [argument]:
            if isinstance(item, Reference):
                yield item.name


def as_argument(value: Any) -> Any:
    """A constant in the form kernels take: Python values up to rank 1 (if integer), torch tensors above."""
    if not isinstance(value, np.ndarray):
        return value
    if value.ndim == 0:
        return value.item()
    if value.dtype == np.bool_ or (value.ndim == 1 and value.dtype.kind in "iu"):
        return value.tolist() if value.ndim == 1 else torch.from_numpy(value.copy())
    if value.dtype.kind == "f":
        return torch.from_numpy(value.astype(np.float32))
    return torch.from_numpy(value.astype(np.int32))


def _tensor_type(value_type: Any) -> TensorType:
    tensor_type = value_type.tensorType
    return TensorType(element_name(tensor_type), static_shape(tensor_type))


def _blob_opener(package: Package) -> Callable[[str], WeightBlob]:
    opened: dict[str, WeightBlob] = {}

    def blob_of(stored_name: str) -> WeightBlob:
        path = package.model_folder / Path(stored_name.replace("@model_path/", ""))
        if stored_name not in opened:
            opened[stored_name] = WeightBlob(path)
        return opened[stored_name]

    return blob_of


def _raw_arguments(op: Any, constants: dict[str, Any], blob_of: Callable[[str], WeightBlob]) -> dict[str, Any]:
    """Arguments of a compressed constant: attributes up to iOS 17, inputs from iOS 18."""
    raw = {key: decode_value(value, blob_of) for key, value in op.attributes.items() if key != "name"}
    for key, argument in op.inputs.items():
        binding = argument.arguments[0]
        is_name = binding.WhichOneof("binding") == "name"
        raw[key] = constants[binding.name] if is_name else decode_value(binding.value, blob_of)
    return raw


def _bind(argument: Any, constants: dict[str, Any], blob_of: Callable[[str], WeightBlob]) -> Any:
    """One argument of an operation. A MIL argument is a list of bindings; only lists of several stay lists."""
    bound = []
    for binding in argument.arguments:
        if binding.WhichOneof("binding") != "name":
            bound.append(as_argument(decode_value(binding.value, blob_of)))
        elif binding.name in constants:
            bound.append(as_argument(constants[binding.name]))
        else:
            bound.append(Reference(binding.name))
    return bound if len(bound) != 1 else bound[0]
