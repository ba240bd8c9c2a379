"""Count what a saved ML Program is made of, and hold it to the form that suits the Neural Engine."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mobilesam_export.targets.coreml.executor.operations import FunctionBody, read_function
from mobilesam_export.targets.coreml.executor.package import open_package

RANK_LIMIT = 4


@dataclass(frozen=True)
class Form:
    """What a graph promises of its package (with a fixed number of slots).

    Attributes:
        transposes: at most.
        layer_norms: all of them fused: spelled out, their squares overflow float16.
        means: reductions that belong to no norm.
    """

    transposes: int
    layer_norms: int
    means: int = 0


@dataclass(frozen=True)
class Structure:
    """Counts over one function of a package.

    Attributes:
        operations: that do work at run time, constants left out.
        spelled_out_norms: squares, powers and mean reductions, of which a fused LayerNorm has none.
        kinds: how many of each kind.
    """

    operations: int
    transposes: int
    reshapes: int
    linears: int
    gathers: int
    layer_norms: int
    spelled_out_norms: int
    max_rank: int
    float32_operations: int
    kinds: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def structure_of(package: Path, function: str = "main") -> Structure:
    """Count the saved package's operations."""
    return count(read_function(open_package(package), function))


def count(body: FunctionBody) -> Structure:
    """Count the operations of a function that has been read."""
    kinds = Counter(op.kind for op in body.operations)
    outputs = [declared for op in body.operations for _, declared in op.outputs]
    return Structure(
        operations=len(body.operations),
        transposes=kinds["transpose"],
        reshapes=kinds["reshape"],
        linears=kinds["linear"],
        gathers=sum(number for kind, number in kinds.items() if kind.startswith("gather")),
        layer_norms=kinds["layer_norm"],
        spelled_out_norms=kinds["pow"] + kinds["square"] + kinds["reduce_mean"],
        max_rank=max((len(declared.shape) for declared in outputs), default=0),
        float32_operations=sum(
            any(declared.element == "FLOAT32" for _, declared in op.outputs)
            for op in body.operations
            if op.kind != "cast"
        ),
        kinds=dict(sorted(kinds.items())),
    )


def structure_failures(part: str, structure: Structure, form: Form) -> list[str]:
    """What keeps a package from the promised form; empty if nothing does.

    Args:
        part: ``encoder`` or ``decoder``.
    """
    unfused = form.layer_norms - structure.layer_norms + structure.spelled_out_norms - form.means
    checks = (
        ("transposes", structure.transposes, form.transposes),
        ("linear layers that are no 1x1 convolutions", structure.linears, 0),
        ("gathers", structure.gathers, 0),
        ("LayerNorms left unfused", unfused, 0),
        ("axes", structure.max_rank, RANK_LIMIT),
    )
    return [f"{part}: {number} {what}, expected at most {limit}" for what, number, limit in checks if number > limit]
