"""Reductions and what is built on them: softmax and the normalisations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST_NORMAL = torch.finfo(torch.float32).tiny


def reduce_mean(x: Tensor, axes: Sequence[int] | None = None, keep_dims: bool = False) -> Tensor:
    return x.mean(_axes(x, axes), keepdim=keep_dims)


def reduce_sum(x: Tensor, axes: Sequence[int] | None = None, keep_dims: bool = False) -> Tensor:
    return x.sum(_axes(x, axes), keepdim=keep_dims)


def reduce_max(x: Tensor, axes: Sequence[int] | None = None, keep_dims: bool = False) -> Tensor:
    return x.amax(_axes(x, axes), keepdim=keep_dims)


def reduce_min(x: Tensor, axes: Sequence[int] | None = None, keep_dims: bool = False) -> Tensor:
    return x.amin(_axes(x, axes), keepdim=keep_dims)


def reduce_argmax(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    return x.argmax(axis, keepdim=keep_dims).to(torch.int32)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Weights below float32's normal numbers become zero: processors multiply subnormal ones ten times slower."""
    return F.threshold(x.softmax(axis), _SMALLEST_NORMAL, 0.0, inplace=True)


def layer_norm(
    x: Tensor,
    axes: Sequence[int] | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalise over ``axes``, wherever they stand; the affine has the shape of those axes."""
    over = _axes(x, axes)
    if over == list(range(x.ndim - len(over), x.ndim)):
        shape = [x.shape[axis] for axis in over]
        return F.layer_norm(x, shape, gamma, beta, epsilon)
    variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    scale = variance.add_(epsilon).rsqrt_()
    affine_shape = [size if axis in over else 1 for axis, size in enumerate(x.shape)]
    result = x - mean
    result *= scale
    if gamma is not None:
        result *= gamma.reshape(affine_shape)
    if beta is not None:
        result += beta.reshape(affine_shape)
    return result


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, training=False, eps=epsilon)


def _axes(x: Tensor, axes: Sequence[int] | None) -> list[int]:
    return list(range(x.ndim)) if axes is None else sorted(axis % x.ndim for axis in axes)


KERNELS: dict[str, Callable[..., Tensor]] = {
    "reduce_mean": reduce_mean,
    "reduce_sum": reduce_sum,
    "reduce_max": reduce_max,
    "reduce_min": reduce_min,
    "reduce_argmax": reduce_argmax,
    "softmax": softmax,
    "layer_norm": layer_norm,
    "batch_norm": batch_norm,
}
