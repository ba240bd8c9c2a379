"""One plain function for each MIL operation, its arguments spelled as in MIL.

Tensors arrive as torch tensors (float16 values are held exactly in float32), parameters as Python numbers, strings,
booleans or lists. ``KERNELS`` maps operation kinds to functions. Operations in ``MOVES_VALUES`` only move, select or
negate-clip values, so their results need no rounding and may be views of their inputs; so may those of the others in
``MAY_RETURN_INPUT``. All other kernels return memory of their own. ``INTO`` has those that can write over an operand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mobilesam_export.targets.coreml.executor.kernels import (
    convolution,
    elementwise,
    layout,
    matrix,
    quantised,
    reduction,
)

Kernel = Callable[..., Any]

KERNELS: dict[str, Kernel] = {
    **convolution.KERNELS,
    **elementwise.KERNELS,
    **layout.KERNELS,
    **matrix.KERNELS,
    **quantised.KERNELS,
    **reduction.KERNELS,
}
MOVES_VALUES: frozenset[str] = frozenset(layout.KERNELS) | {"relu", "maximum", "minimum", "select"}
MAY_RETURN_INPUT: frozenset[str] = MOVES_VALUES | {"cast"}
INTO: dict[str, Kernel] = elementwise.INTO
