"""Compile a saved ML Program into a list of torch calls, and run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreml.executor import memory
from mobilesam_export.targets.coreml.executor.kernels import INTO, KERNELS, MAY_RETURN_INPUT, MOVES_VALUES, Kernel
from mobilesam_export.targets.coreml.executor.lifetimes import Lifetimes
from mobilesam_export.targets.coreml.executor.operations import (
    FunctionBody,
    Operation,
    Reference,
    TensorType,
    read_function,
)
from mobilesam_export.targets.coreml.executor.package import open_package

# Called for every computed value, before it is rounded to its declared type: (operation, output name, value). The value
# is valid during the call only: it is rounded in place, and later overwritten.
Observer = Callable[[Operation, str, Tensor], None]

_LISTS = {("concat", "values"), ("stack", "values")}


@dataclass(frozen=True)
class _Step:
    """One call: fixed arguments bound, computed ones named, values that nobody reads afterwards listed.

    Attributes:
        overwrites: the argument whose memory the result may take, as nobody reads it afterwards.
    """

    operation: Operation
    kernel: Kernel
    constants: dict[str, Any]
    computed: tuple[tuple[str, str], ...]
    computed_lists: tuple[tuple[str, tuple[Any, ...]], ...]
    rounds: tuple[bool, ...]
    dead_after: tuple[str, ...]
    overwrites: str | None


class MLProgram:
    """A saved program, ready to run.

    float16 is emulated: every float16 value is held in float32 and rounded to float16 where the program declares it, so
    each operation is exact but for its final rounding. Real hardware may accumulate in float16 as well.
    """

    def __init__(self, path: Path, function: str = "main") -> None:
        """Load ``path``.

        Raises:
            ExportError: the package is damaged, or holds an operation that the executor does not know.
        """
        self.path = Path(path)
        self.package = open_package(self.path)
        self.body: FunctionBody = read_function(self.package, function)
        unknown = [op for op in self.body.operations if op.kind not in KERNELS]
        if unknown:
            first = unknown[0]
            raise ExportError(
                f"got operation {first.kind!r} named {first.name!r} ({first.location}), expected one that the executor "
                f"knows; add it to executor/kernels (unknown in all: {sorted({op.kind for op in unknown})})"
            )
        self._steps = _compile(self.body)

    @property
    def inputs(self) -> dict[str, TensorType]:
        """Declared type of each input."""
        return self.body.inputs

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations that do work at run time, in order."""
        return self.body.operations

    def run(self, feeds: Mapping[str, NDArray[Any]], observe: Observer | None = None) -> dict[str, NDArray[Any]]:
        """Execute the program on one set of inputs.

        Args:
            feeds: one array for each input.
            observe: called with every computed value before its rounding.

        Raises:
            ExportError: an input is missing or misshapen, or an operation fails; it is named with its location.
        """
        values = self._check_feeds(feeds)
        with torch.inference_mode():
            for step in self._steps:
                try:
                    self._execute(step, values, observe)
                except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
                    op = step.operation
                    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                    raise ExportError(
                        f"operation {op.kind} named {op.name!r} failed ({op.location}): {reason}"
                    ) from error
            return {name: self._output(values, name) for name in self.body.output_names}

    def _execute(self, step: _Step, values: dict[str, Tensor], observe: Observer | None) -> None:
        arguments = dict(step.constants)
        for key, name in step.computed:
            arguments[key] = values[name]
        for key, items in step.computed_lists:
            arguments[key] = [values[item.name] if isinstance(item, Reference) else item for item in items]
        if step.overwrites is not None and arguments[step.overwrites].is_contiguous():
            results = INTO[step.operation.kind](**arguments, out=arguments[step.overwrites])
        else:
            results = step.kernel(**arguments)
        if isinstance(results, Tensor):
            results = (results,)
        for (name, declared), result, rounds in zip(step.operation.outputs, results, step.rounds, strict=True):
            _check_shape(result, declared)
            if observe is not None:
                observe(step.operation, name, result)
            if rounds and step.operation.kind in MAY_RETURN_INPUT:
                result = result.half().float()
            elif rounds:
                memory.round_to_float16(result)
            values[name] = result
        for name in step.dead_after:
            del values[name]

    def _check_feeds(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        wrong = sorted(set(feeds) ^ set(self.inputs))
        if wrong:
            raise ExportError(f"got inputs {sorted(feeds)}, expected {sorted(self.inputs)} for {self.path.name}")
        values = {}
        for name, declared in self.inputs.items():
            array = np.asarray(feeds[name])
            if not _fits(array.shape, declared.shape):
                raise ExportError(f"got {name} of shape {array.shape}, expected {declared.shape} for {self.path.name}")
            if declared.element.startswith("FLOAT"):
                value = torch.from_numpy(np.array(array, dtype=np.float32))
                values[name] = value.half().float() if declared.element == "FLOAT16" else value
            else:
                values[name] = torch.from_numpy(np.array(array, dtype=np.int32))
        return values

    def _output(self, values: dict[str, Tensor], name: str) -> NDArray[Any]:
        if name in values:
            array: NDArray[Any] = values[name].contiguous().numpy()
            return array
        return np.asarray(self.body.constants[name])


def _compile(body: FunctionBody) -> list[_Step]:
    lifetimes = Lifetimes(body)
    steps = []
    for index, op in enumerate(body.operations):
        constants: dict[str, Any] = {}
        computed, computed_lists = [], []
        for key, argument in op.arguments.items():
            if (op.kind, key) in _LISTS and not isinstance(argument, list):
                argument = [argument]
            if isinstance(argument, Reference):
                computed.append((key, argument.name))
            elif isinstance(argument, list) and any(isinstance(item, Reference) for item in argument):
                computed_lists.append((key, tuple(argument)))
            else:
                constants[key] = argument
        rounds = tuple(declared.element == "FLOAT16" and op.kind not in MOVES_VALUES for _, declared in op.outputs)
        steps.append(
            _Step(
                op,
                KERNELS[op.kind],
                constants,
                tuple(computed),
                tuple(computed_lists),
                rounds,
                lifetimes.dead_after(index),
                lifetimes.overwritable(index),
            )
        )
    return steps


def _fits(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return len(shape) == len(declared) and all(want in (None, have) for have, want in zip(shape, declared, strict=True))


def _check_shape(result: Tensor, declared: TensorType) -> None:
    if not _fits(tuple(result.shape), declared.shape):
        raise ValueError(f"computed shape {tuple(result.shape)}, declared {declared.shape}")
