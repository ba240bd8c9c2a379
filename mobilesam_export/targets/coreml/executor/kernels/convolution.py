"""Convolutions, plain and transposed, and pooling, with MIL's padding rules (pairs before and after each axis)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilesam_export.targets.coreml.executor import memory

_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_TRANSPOSED = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}
_MAX_POOLS = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}
_DEPTHWISE_CHANNELS = 32  # computed at a time, so that torch's rearranged copies of them stay in the cache


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Sequence[int] | None = None,
    pad_type: str = "valid",
    pad: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    groups: int = 1,
) -> Tensor:
    spatial = x.ndim - 2
    strides = list(strides or [1] * spatial)
    dilations = list(dilations or [1] * spatial)
    if pad_type == "custom":
        pairs = list(pad or [0] * 2 * spatial)
    elif pad_type == "valid":
        pairs = [0] * 2 * spatial
    else:
        pairs = _same_padding(x.shape[2:], weight.shape[2:], strides, dilations, lower=pad_type == "same_lower")
    before, after = pairs[::2], pairs[1::2]
    if before != after:
        x = F.pad(x, _torch_pad(pairs))
        before = [0] * spatial
    settings = (strides, before, dilations)
    if x.ndim == 4 and len(x) == 1 and max(x.numel(), _result_size(x, weight, *settings)) >= memory.LARGE:
        if groups == 1 and weight.shape[2:] == (1, 1) and strides == [1, 1] and not any(before):
            return _one_by_one(x, weight, _flat(bias))
        if groups == x.shape[1] == len(weight):
            return _depthwise(x, weight, _flat(bias), *settings)
    result: Tensor = _CONVOLUTIONS[x.ndim](x, weight, _flat(bias), *settings, groups)
    return result


def _result_size(
    x: Tensor, weight: Tensor, strides: Sequence[int], padding: Sequence[int], dilations: Sequence[int]
) -> int:
    """Elements of a convolution's result."""
    count = len(x) * len(weight)
    for size, width, stride, pad, dilation in zip(
        x.shape[2:], weight.shape[2:], strides, padding, dilations, strict=True
    ):
        count *= (size + 2 * pad - (width - 1) * dilation - 1) // stride + 1
    return count


def _one_by_one(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A large 1x1 convolution of (1, C, H, W) as the matrix product that it is, into memory of our choice."""
    result = memory.empty((1, len(weight), *x.shape[2:]))
    matrix, pixels, into = weight.flatten(1), x.reshape(x.shape[1], -1), result.view(len(weight), -1)
    if bias is None:
        torch.mm(matrix, pixels, out=into)
    else:
        torch.addmm(bias[:, None], matrix, pixels, out=into)
    return result


def _depthwise(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[int],
    padding: Sequence[int],
    dilations: Sequence[int],
) -> Tensor:
    """A large depthwise convolution of (1, C, H, W), some channels at a time."""
    result = None
    for first in range(0, len(weight), _DEPTHWISE_CHANNELS):
        some = slice(first, first + _DEPTHWISE_CHANNELS)
        part = F.conv2d(
            x[:, some],
            weight[some],
            None if bias is None else bias[some],
            strides,
            padding,
            dilations,
            len(weight[some]),
        )
        if result is None:
            result = memory.empty((1, len(weight), *part.shape[2:]))
        result[:, some] = part
    assert result is not None
    return result


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pad_type: str = "valid",
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    groups: int = 1,
) -> Tensor:
    spatial = x.ndim - 2
    strides = list(strides or [1] * spatial)
    dilations = list(dilations or [1] * spatial)
    if x.ndim == 4 and len(x) == groups == 1 and list(weight.shape[2:]) == strides and strides[0] == strides[1]:
        full = _upscale(x, weight, _flat(bias), strides[0])
    else:
        full = _TRANSPOSED[x.ndim](x, weight, _flat(bias), strides, 0, 0, groups, dilations)
    pairs = list(pad or [0] * 2 * spatial) if pad_type == "custom" else [0] * 2 * spatial
    sizes = [full.shape[2 + axis] - pairs[2 * axis] - pairs[2 * axis + 1] for axis in range(spatial)]
    if pad_type.startswith("same"):
        sizes = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
        surplus = [have - want for have, want in zip(full.shape[2:], sizes, strict=True)]
        pairs = [part for extra in surplus for part in (extra // 2, extra - extra // 2)]
    if output_shape is not None:
        sizes = list(output_shape)[2:]
    # A requested output may reach past the computed one: those rows and columns hold the bias alone, so pad it there.
    missing = [max(0, pairs[2 * axis] + sizes[axis] - full.shape[2 + axis]) for axis in range(spatial)]
    if any(missing):
        grown = F.pad(full, _torch_pad([part for extra in missing for part in (0, extra)]))
        if bias is not None:
            inside = F.pad(full.new_ones(full.shape[2:]), _torch_pad([p for extra in missing for p in (0, extra)]))
            grown = grown + (1 - inside) * bias.reshape(-1, *[1] * spatial)
        full = grown
    for axis in range(spatial):
        full = full.narrow(2 + axis, pairs[2 * axis], sizes[axis])
    return full


def max_pool(
    x: Tensor,
    kernel_sizes: Sequence[int],
    strides: Sequence[int] | None = None,
    pad_type: str = "valid",
    pad: Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """What lies outside is never the greatest."""
    if ceil_mode:
        raise NotImplementedError("max_pool with ceil_mode")  # no package of ours has it; said instead of guessed
    spatial = x.ndim - 2
    steps = list(strides or [1] * spatial)
    if pad_type == "custom":
        pairs = list(pad or [0] * 2 * spatial)
    elif pad_type == "valid":
        pairs = [0] * 2 * spatial
    else:
        lower = pad_type == "same_lower"
        pairs = _same_padding(x.shape[2:], list(kernel_sizes), steps, [1] * spatial, lower=lower)
    if any(pairs):
        x = F.pad(x, _torch_pad(pairs), value=-torch.inf)
    return _MAX_POOLS[x.ndim](x, list(kernel_sizes), steps)


def _upscale(x: Tensor, weight: Tensor, bias: Tensor | None, factor: int) -> Tensor:
    """A transposed convolution of (1, C, H, W) whose kernel is its stride: every pixel makes a square of its own."""
    channels, height, width = x.shape[1:]
    squares = weight.reshape(channels, -1).T @ x.reshape(channels, -1)  # (C' * factor^2, H * W)
    full = F.pixel_shuffle(squares.view(1, -1, height, width), factor)
    return full if bias is None else full.add_(bias[:, None, None])


def _flat(bias: Tensor | Sequence[float] | None) -> Tensor | None:
    return bias if bias is None or isinstance(bias, Tensor) else Tensor(bias)


def _torch_pad(pairs: Sequence[int]) -> list[int]:
    """MIL orders pads from the first spatial axis, torch from the last."""
    order = []
    for axis in reversed(range(len(pairs) // 2)):
        order += [pairs[2 * axis], pairs[2 * axis + 1]]
    return order


def _same_padding(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], *, lower: bool
) -> list[int]:
    pairs = []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (width - 1) * dilation + 1
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        small, large = total // 2, total - total // 2
        pairs += [large, small] if lower else [small, large]
    return pairs


KERNELS: dict[str, Callable[..., Tensor]] = {"conv": conv, "conv_transpose": conv_transpose, "max_pool": max_pool}
