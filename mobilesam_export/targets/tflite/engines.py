"""One signature of a TFLite file as a function of named arrays, over either of LiteRT's interfaces.

Signature inputs come in alphabetical order and tensor names are the converter's; only the signature's
own names are stable, so everything is bound by name.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from mobilesam_export.chatter import without_native_chatter
from mobilesam_export.errors import ExportError


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of a signature's input or output."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Signature(Protocol):
    """Named arrays in, named arrays out."""

    inputs: dict[str, TensorSpec]

    def __call__(self, **arrays: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Run once; every input must be given."""

    def close(self) -> None:
        """Release the model."""


def open_checked(path: Path, key: str, threads: int) -> Interpreter:
    """Open a file whose FlatBuffer is sound; CompiledModel itself crashes on a truncated one.

    Raises:
        ExportError: missing, damaged, or without the signature ``key``.
    """
    if not path.is_file():
        raise ExportError(f"there is no {path}; export it first with --target tflite")
    try:
        with without_native_chatter():
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ExportError(f"{path} is damaged or no TFLite file ({reason}); export it again") from error
    if key not in interpreter.get_signature_list():
        found = ", ".join(interpreter.get_signature_list()) or "none"
        raise ExportError(f"{path} has the signatures {found}, expected {key}; export it again with --target tflite")
    return interpreter


def bind(specs: dict[str, TensorSpec], arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Check names and shapes; cast and lay out as the signature wants."""
    if arrays.keys() != specs.keys():
        raise ExportError(f"got the inputs {sorted(arrays)}, expected {sorted(specs)}")
    for name, spec in specs.items():
        if arrays[name].shape != spec.shape:
            raise ExportError(f"got {name} of shape {arrays[name].shape}, expected {spec.shape}")
    return {name: np.ascontiguousarray(arrays[name], spec.dtype) for name, spec in specs.items()}


class InterpreterSignature:
    """A signature run by ``ai_edge_litert.interpreter.Interpreter``."""

    def __init__(self, path: Path, key: str, threads: int) -> None:
        self._interpreter = open_checked(path, key, threads)
        with without_native_chatter():
            self._interpreter.allocate_tensors()
        self._run = self._interpreter.get_signature_runner(key)
        details = self._run.get_input_details()
        self.inputs = {
            name: TensorSpec(tuple(d["shape"].tolist()), np.dtype(d["dtype"])) for name, d in details.items()
        }

    def __call__(self, **arrays: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See ``Signature``."""
        outputs: dict[str, NDArray[np.float32]] = self._run(**bind(self.inputs, arrays))
        return outputs

    def close(self) -> None:
        """See ``Signature``."""
        del self._run
        del self._interpreter


class CompiledSignature:
    """A signature run by ``ai_edge_litert.compiled_model.CompiledModel`` on the CPU."""

    def __init__(self, path: Path, key: str, threads: int) -> None:
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        from ai_edge_litert.options import CpuOptions, Options

        open_checked(path, key, 1)
        options = Options(HardwareAccelerator.CPU, cpu_options=CpuOptions(num_threads=threads))
        with without_native_chatter():
            self._model, self._key = CompiledModel.from_file(str(path), options=options), key
        self.inputs = specs_of(self._model.get_input_tensor_details(key))
        self._outputs = specs_of(self._model.get_output_tensor_details(key))
        self._input_buffers = {name: self._model.create_input_buffer_by_name(key, name) for name in self.inputs}
        self._output_buffers = {name: self._model.create_output_buffer_by_name(key, name) for name in self._outputs}

    def __call__(self, **arrays: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """See ``Signature``."""
        for name, array in bind(self.inputs, arrays).items():
            self._input_buffers[name].write(array)
        self._model.run_by_name(self._key, self._input_buffers, self._output_buffers)
        return {
            name: self._output_buffers[name].read(int(np.prod(spec.shape)), spec.dtype).reshape(spec.shape)
            for name, spec in self._outputs.items()
        }

    def close(self) -> None:
        """See ``Signature``."""
        for buffer in (*self._input_buffers.values(), *self._output_buffers.values()):
            buffer.destroy()
        self._model.close()


def specs_of(details: dict[str, dict[str, Any]]) -> dict[str, TensorSpec]:
    """CompiledModel's tensor details as specs."""
    return {
        name: TensorSpec(tuple(int(side) for side in d["shape"]), np.dtype(d["dtype"])) for name, d in details.items()
    }
