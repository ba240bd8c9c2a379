"""Run-time quantisation of activations (W8A8 packages)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mobilesam_export.targets.coreml.executor.kernels.arguments import tensor

_LIMITS = {"int8": (-128, 127, torch.int8), "uint8": (0, 255, torch.uint8)}


def quantize(
    input: Tensor,
    scale: Tensor | float,
    output_dtype: str,
    zero_point: Tensor | int | None = None,
    axis: int | None = None,
) -> Tensor:
    low, high, data_type = _LIMITS[output_dtype]
    steps = (input / _spread(scale, input.ndim, axis)).round_()
    if zero_point is not None:
        steps += _spread(zero_point, input.ndim, axis)
    return steps.clamp_(low, high).to(data_type)


def dequantize(
    input: Tensor, scale: Tensor | float, zero_point: Tensor | int | None = None, axis: int | None = None
) -> Tensor:
    centred = input.to(torch.float32)
    if zero_point is not None:
        centred -= _spread(zero_point, input.ndim, axis)
    centred *= _spread(scale, input.ndim, axis)
    return centred


def _spread(parameter: Tensor | float | Sequence[float], rank: int, axis: int | None) -> Tensor:
    """A scalar as it is, a vector along ``axis``."""
    value = tensor(parameter).to(torch.float32)
    if value.ndim == 0 or axis is None:
        return value.reshape(()) if value.numel() == 1 else value
    shape = [1] * rank
    shape[axis] = -1
    return value.reshape(shape)


KERNELS: dict[str, Callable[..., Tensor]] = {"quantize": quantize, "dequantize": dequantize}
