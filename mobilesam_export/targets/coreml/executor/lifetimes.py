"""When each value of a function is read for the last time, and whose memory a result may take then."""

from __future__ import annotations

from collections import defaultdict

from torch import Tensor

from mobilesam_export.targets.coreml.executor.kernels import INTO, MAY_RETURN_INPUT
from mobilesam_export.targets.coreml.executor.operations import (
    FunctionBody,
    Operation,
    Reference,
    TensorType,
    references,
)

_NEVER = 1 << 60


class Lifetimes:
    """Of the values of one function.

    Values that may share memory, since an operation may return a view of its input, form a family. Only when the
    last of a family has been read can its memory be overwritten.
    """

    def __init__(self, body: FunctionBody) -> None:
        self._operations = body.operations
        self._types: dict[str, TensorType] = dict(body.inputs)
        self._last_use: dict[str, int] = {}
        self._family: dict[str, str] = {name: name for name in body.inputs}  # by the name of its first member
        self._family_ends: dict[str, int] = defaultdict(int)
        for index, op in enumerate(body.operations):
            self._types.update(op.outputs)
            self._last_use.update(dict.fromkeys(references(op), index))
            self._join(op)
        self._last_use.update(dict.fromkeys(body.output_names, _NEVER))
        for name, family in self._family.items():
            self._family_ends[family] = max(self._family_ends[family], self._last_use.get(name, 0))

    def dead_after(self, index: int) -> tuple[str, ...]:
        """Values that the operation reads or makes and nobody reads afterwards."""
        op = self._operations[index]
        names = {*references(op), *(name for name, _ in op.outputs)}
        return tuple(sorted(name for name in names if self._last_use.get(name, -1) <= index))

    def overwritable(self, index: int) -> str | None:
        """The operand, by its parameter's name, whose memory the operation's result may take."""
        op = self._operations[index]
        if op.kind not in INTO:
            return None
        ((_, result),) = op.outputs
        for key in ("x", "y"):
            operand = op.arguments.get(key)
            if (
                isinstance(operand, Reference)
                and self._is_like(operand.name, result)
                and self._family_ends[self._family[operand.name]] <= index
                and self._is_apart(op, operand.name)
            ):
                return key
        return None

    def _join(self, op: Operation) -> None:
        """Put the operation's results into their families."""
        sources = set(references(op)) if op.kind in MAY_RETURN_INPUT else set()
        first = op.outputs[0][0]
        joined = {self._family[name] for name in sources}
        for name, family in self._family.items():
            if family in joined:
                self._family[name] = first
        self._family.update({name: first for name, _ in op.outputs})
        if op.kind in MAY_RETURN_INPUT and any(isinstance(value, Tensor) for value in op.arguments.values()):
            self._family_ends[first] = _NEVER  # it may be a view of a constant
        for family in joined:
            self._family_ends[first] = max(self._family_ends[first], self._family_ends[family])

    def _is_like(self, name: str, result: TensorType) -> bool:
        """Whether the named value has as many floating-point numbers as the result, in the same order."""
        operand = self._types[name]
        floats = all(declared.element in ("FLOAT16", "FLOAT32") for declared in (operand, result))
        return floats and operand.shape == result.shape and None not in result.shape

    def _is_apart(self, op: Operation, name: str) -> bool:
        """Whether no other operand may be another view of the named value's memory."""
        return all(other == name or self._family[other] != self._family[name] for other in references(op))
