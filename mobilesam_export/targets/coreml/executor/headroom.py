"""How close a float16 program comes to float16's limits, operation by operation, on given inputs.

float16 ends at 65504; below 6.1e-5 it loses bits (subnormal), and hardware that flushes subnormals makes zero of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobilesam_export.targets.coreml.executor.operations import Operation
from mobilesam_export.targets.coreml.executor.program import MLProgram

LARGEST = 65504.0
SMALLEST_NORMAL = 2.0**-14
WARN_ABOVE = 0.5  # of LARGEST: another photo may well be twice as large


@dataclass(frozen=True)
class OperationHeadroom:
    """One operation's largest result.

    Attributes:
        magnitude: before rounding, over all inputs.
        used: part of float16's range, 1 where it overflows.
    """

    kind: str
    name: str
    magnitude: float
    used: float


@dataclass(frozen=True)
class Headroom:
    """A program's float16 operations, the closest to the limit first.

    Attributes:
        smallest_epsilon: of any normalisation computed in float16, as float16 holds it; None without one.
        subnormal_epsilons: how many of these lie below float16's normal numbers.
    """

    operations: tuple[OperationHeadroom, ...]
    smallest_epsilon: float | None
    subnormal_epsilons: int

    @property
    def worst(self) -> OperationHeadroom | None:
        """None in a float32 program."""
        return self.operations[0] if self.operations else None

    @property
    def warnings(self) -> list[str]:
        """One line for each operation above the limit for warnings, NaN included."""
        return [
            f"operation {op.kind} named {op.name!r} reaches {op.magnitude:.4g}, {op.used:.0%} of float16's range"
            for op in self.operations
            if not op.used <= WARN_ABOVE
        ]

    def as_dict(self, most: int = 10) -> dict[str, Any]:
        """For the manifest: the ``most`` operations closest to the limit."""
        return {
            "float16_operations": len(self.operations),
            "largest": LARGEST,
            "closest": [asdict(op) for op in self.operations[:most]],
            "smallest_epsilon": self.smallest_epsilon,
            "subnormal_epsilons": self.subnormal_epsilons,
            "smallest_normal": SMALLEST_NORMAL,
        }


def measure_headroom(program: MLProgram, samples: Iterable[Mapping[str, Any]]) -> Headroom:
    """Run every sample and keep the largest magnitude of each float16 operation."""
    largest: dict[str, float] = {}
    kinds = {op.outputs[0][0]: op for op in program.operations if op.outputs}

    def observe(op: Operation, name: str, value: Tensor) -> None:
        declared = dict(op.outputs)[name]
        if declared.element == "FLOAT16" and value.numel():
            low, high = value.aminmax()
            magnitude = float(torch.maximum(-low, high))  # a NaN stays one
            key = op.outputs[0][0]
            largest[key] = max(magnitude, largest.get(key, 0.0)) if magnitude == magnitude else magnitude

    for sample in samples:
        program.run(sample, observe)
    rows = [
        OperationHeadroom(kinds[key].kind, kinds[key].name, magnitude, magnitude / LARGEST)
        for key, magnitude in largest.items()
    ]
    rows.sort(key=lambda row: -row.used if row.used == row.used else -np.inf)
    epsilons = [
        float(np.float16(op.arguments["epsilon"]))
        for op in program.operations
        if op.outputs[0][1].element == "FLOAT16" and isinstance(op.arguments.get("epsilon"), float)
    ]
    return Headroom(tuple(rows), min(epsilons, default=None), sum(epsilon < SMALLEST_NORMAL for epsilon in epsilons))
