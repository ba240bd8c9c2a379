"""Small conversions between what MIL passes and what torch takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Numbers = Tensor | Sequence[int] | int


def integers(values: Numbers) -> list[int]:
    """A shape, axes or index parameter as a list, whether it was a constant or computed by the program."""
    if isinstance(values, Tensor):
        values = values.tolist()
    return [int(value) for value in values] if isinstance(values, Sequence) else [int(values)]


def tensor(value: Tensor | float | bool | Sequence[float]) -> Tensor:
    """A data operand as a tensor: constants of rank 0 and 1 reach the kernels as Python values."""
    if isinstance(value, Tensor):
        return value
    made = torch.tensor(value)
    return made.to(torch.int32) if made.dtype == torch.int64 else made
