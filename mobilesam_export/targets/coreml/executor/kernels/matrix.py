"""Matrix products."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilesam_export.targets.coreml.executor.kernels.arguments import tensor


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    x, y = tensor(x), tensor(y)
    # As in MIL: the flags do nothing to an operand of one axis.
    if transpose_x and x.ndim > 1:
        x = x.mT
    if transpose_y and y.ndim > 1:
        y = y.mT
    return torch.matmul(x, y)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, None if bias is None else tensor(bias))


KERNELS: dict[str, Callable[..., Tensor]] = {"matmul": matmul, "linear": linear}
