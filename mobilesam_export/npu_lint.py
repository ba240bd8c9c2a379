"""What a phone's NPU compiler would say to a graph, as far as limits that are published tell without the compiler.

NPU compilers take graphs of fixed shape, tensors of at most four axes (their layouts are batch, height, width and
channels) and no 64-bit integers, and look up rows (Gather) in constants only. What they do take may be slow all the
same: a transpose moves a whole activation; and a softmax over a wide row wants 16-bit activations with 8-bit weights
(A16W8), since 8 bits have fewer levels than such a row has weights. The former are problems, the latter is counted.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MAX_RANK = 4
LEVELS = 256  # of 8 bits


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph.

    Attributes:
        shape: None if the file does not say it; with names for dimensions that vary.
        dtype: as NumPy calls it.
        constant: it is in the file.
    """

    shape: tuple[int | str, ...] | None
    dtype: str
    constant: bool = False


@dataclass(frozen=True)
class Operator:
    """An operator of a graph, by the format's own name."""

    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def lint(operators: Iterable[Operator]) -> dict[str, Any]:
    """Look at a graph, for the manifest.

    Returns:
        ``problems``, one line each; ``max_rank``; how many ``transposes`` and ``reshapes``; ``softmax_widths``, how
        many there are of each (a name where it varies), and whether one of them wants ``a16w8``.
    """
    listed = list(operators)
    kinds = [operator.kind.replace("_", "").lower() for operator in listed]
    activations = [
        tensor for operator in listed for tensor in (*operator.inputs, *operator.outputs) if not tensor.constant
    ]
    max_rank = max((len(tensor.shape) for tensor in activations if tensor.shape is not None), default=0)
    integers = sum(tensor.dtype == "int64" for operator in listed for tensor in operator.outputs)
    gathers = sum(
        kind.startswith("gather") and not operator.inputs[0].constant
        for kind, operator in zip(kinds, listed, strict=True)
    )
    varying = any(isinstance(size, str) for tensor in activations for size in tensor.shape or ())
    problems = (
        (max_rank > MAX_RANK, f"a tensor has {max_rank} axes, an NPU takes {MAX_RANK}"),
        (integers, f"{integers} activations are int64"),
        (gathers, f"{gathers} gathers read an activation"),
        (varying, "shapes vary, an NPU takes fixed ones"),
    )
    widths = Counter(filter(None, map(_softmax_width, kinds, listed)))
    return {
        "problems": [told for found, told in problems if found],
        "max_rank": max_rank,
        "transposes": kinds.count("transpose"),
        "reshapes": kinds.count("reshape"),
        "softmax_widths": {str(width): count for width, count in sorted(widths.items(), key=str)},
        "a16w8": any(isinstance(width, int) and width > LEVELS for width in widths),
    }


def _softmax_width(kind: str, operator: Operator) -> int | str | None:
    """Weights in a row of a softmax, or of an attention, whose second input are the keys; None for other operators."""
    if kind == "softmax":
        shape, axis = operator.outputs[0].shape, -1
    elif kind == "attention":
        shape, axis = operator.inputs[1].shape, -2
    else:
        return None
    return shape[axis] if shape else "unknown"
