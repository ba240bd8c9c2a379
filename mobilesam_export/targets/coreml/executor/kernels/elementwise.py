"""Elementwise operations: arithmetic, comparison, logic, activation and type conversion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilesam_export.targets.coreml.executor.kernels.arguments import tensor

_TYPES = {
    "fp16": torch.float32,  # rounding to float16 follows every kernel, from the declared type of the output
    "fp32": torch.float32,
    "int32": torch.int32,
    "int16": torch.int16,
    "uint16": torch.int32,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
_GELU_TANH = "TANH_APPROXIMATION"


def cast(x: Tensor | float, dtype: str) -> Tensor:
    value = tensor(x)
    if value.is_floating_point() and dtype.startswith(("int", "uint")):
        value = value.trunc()
    return value.to(_TYPES[dtype])


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    if mode == "EXACT":
        return F.gelu(x)
    if mode == _GELU_TANH:
        return F.gelu(x, approximate="tanh")
    return x * torch.sigmoid(1.702 * x)


def gelu_into(x: Tensor, mode: str = "EXACT", *, out: Tensor) -> Tensor:
    if mode == "EXACT":
        torch.ops.aten.gelu.out(x, out=out)
        return out
    return out.copy_(gelu(x, mode))


def real_div(x: Tensor, y: Tensor) -> Tensor:
    return torch.div(tensor(x), tensor(y))


def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    return torch.rsqrt(x + epsilon)


def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    return torch.reciprocal(x + epsilon)


def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    return torch.log(x + epsilon)


def clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    return x.clamp(alpha, beta)


def leaky_relu(x: Tensor, alpha: float) -> Tensor:
    return F.leaky_relu(x, alpha)


def select(cond: Tensor | bool, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(tensor(cond), tensor(a), tensor(b))


def _binary(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return function(tensor(x), tensor(y))

    return kernel


def _binary_into(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def kernel(x: Tensor, y: Tensor, *, out: Tensor) -> Tensor:
        return function(tensor(x), tensor(y), out=out)

    return kernel


def _unary(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def kernel(x: Tensor) -> Tensor:
        return function(x)

    return kernel


_BINARY: dict[str, Any] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "pow": torch.pow,
    "floor_div": torch.floor_divide,
    "mod": torch.remainder,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}
_UNARY: dict[str, Any] = {
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "exp": torch.exp,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "abs": torch.abs,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round": torch.round,
    "sin": torch.sin,
    "cos": torch.cos,
    "logical_not": torch.logical_not,
}
KERNELS: dict[str, Callable[..., Tensor]] = {
    "cast": cast,
    "gelu": gelu,
    "real_div": real_div,
    "rsqrt": rsqrt,
    "inverse": inverse,
    "log": log,
    "clip": clip,
    "leaky_relu": leaky_relu,
    "select": select,
    **{kind: _binary(function) for kind, function in _BINARY.items()},
    **{kind: _unary(function) for kind, function in _UNARY.items()},
}
# The same, but the result overwrites ``out``, which may be an operand.
INTO: dict[str, Callable[..., Tensor]] = {
    "gelu": gelu_into,
    "real_div": _binary_into(torch.div),
    **{kind: _binary_into(_BINARY[kind]) for kind in ("add", "sub", "mul")},
}
