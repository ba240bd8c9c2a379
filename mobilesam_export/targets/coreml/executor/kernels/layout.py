"""Operations that move values without changing them: shapes, slices, joins, pixel shuffles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilesam_export.targets.coreml.executor.kernels.arguments import Numbers, integers, tensor


def identity(x: Tensor) -> Tensor:
    return tensor(x)


def shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


def reshape(x: Tensor, shape: Numbers) -> Tensor:
    """A 0 keeps the input's size at that axis, a -1 is inferred, as in MIL."""
    sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(integers(shape))]
    return tensor(x).reshape(sizes)


def transpose(x: Tensor, perm: Sequence[int]) -> Tensor:
    return x.permute(*perm)


def expand_dims(x: Tensor, axes: Sequence[int]) -> Tensor:
    x = tensor(x)
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def concat(values: Sequence[Tensor], axis: int, interleave: bool = False) -> Tensor:
    tensors = [tensor(value).reshape(-1) if tensor(value).ndim == 0 else tensor(value) for value in values]
    if not interleave:
        return torch.cat(tensors, dim=axis)
    return torch.stack(tensors, dim=axis % tensors[0].ndim + 1).flatten(
        axis % tensors[0].ndim, axis % tensors[0].ndim + 1
    )


def stack(values: Sequence[Tensor], axis: int) -> Tensor:
    return torch.stack([tensor(value) for value in values], dim=axis)


def split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Sequence[int] | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return tuple(torch.split(x, list(split_sizes), dim=axis))
    return tuple(x.chunk(num_splits or 1, dim=axis))


def slice_by_index(
    x: Tensor,
    begin: Numbers,
    end: Numbers,
    stride: Sequence[int] | None = None,
    begin_mask: Sequence[bool] | None = None,
    end_mask: Sequence[bool] | None = None,
    squeeze_mask: Sequence[bool] | None = None,
) -> Tensor:
    """NumPy slicing, negative strides included; a squeezed axis is indexed at ``begin``."""
    x = tensor(x)
    none = [False] * x.ndim
    starts, stops = integers(begin), integers(end)
    for axis, (step, free_start, free_stop, squeezed) in enumerate(
        zip(stride or [1] * x.ndim, begin_mask or none, end_mask or none, squeeze_mask or none, strict=True)
    ):
        size = x.shape[axis]
        if squeezed:
            index = starts[axis] + (size if starts[axis] < 0 else 0)
            x = x.narrow(axis, index, 1)
            continue
        chosen = range(
            *slice(None if free_start else starts[axis], None if free_stop else stops[axis], step).indices(size)
        )
        if step == 1:
            x = x.narrow(axis, chosen.start, len(chosen))
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64))
    dropped = tuple(axis for axis, squeezed in enumerate(squeeze_mask or none) if squeezed)
    return x.squeeze(dropped) if dropped else x


def slice_by_size(x: Tensor, begin: Numbers, size: Numbers) -> Tensor:
    for axis, (start, length) in enumerate(zip(integers(begin), integers(size), strict=True)):
        start += x.shape[axis] if start < 0 else 0
        x = x.narrow(axis, start, x.shape[axis] - start if length == -1 else length)
    return x


def pad(x: Tensor, pad: Numbers, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """MIL's pads belong to the last axes, in the order of the axes; torch's go from the last axis backwards."""
    pairs = integers(pad)
    backwards = [part for axis in reversed(range(len(pairs) // 2)) for part in pairs[2 * axis : 2 * axis + 2]]
    if mode == "constant":
        return F.pad(x, backwards, value=float(constant_val))
    while len(backwards) > 2 and backwards[-2:] == [0, 0]:  # torch reflects and replicates inner axes only
        backwards = backwards[:-2]
    axes = len(backwards) // 2
    batch = x.reshape(1, -1, *x.shape[x.ndim - axes :])
    padded = F.pad(batch, backwards, mode={"reflect": "reflect", "replicate": "replicate"}[mode])
    return padded.reshape(*x.shape[: x.ndim - axes], *padded.shape[2:])


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """As ``torch.nn.functional``'s, but a view of another order is read in that order: here, window by window."""
    batch, channels, height, width = x.shape
    factor = upscale_factor
    squares = x.reshape(batch, channels // factor**2, factor, factor, height, width)
    return squares.permute(0, 1, 4, 2, 5, 3).reshape(batch, -1, height * factor, width * factor)


def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """As ``torch.nn.functional``'s, but channels lie last in memory: window by window, as window attention reads it."""
    batch, channels, height, width = x.shape
    factor = downscale_factor
    squares = x.reshape(batch, channels, height // factor, factor, width // factor, factor)
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).permute(0, 3, 1, 2)


def gather(x: Tensor, indices: Any, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    if batch_dims:
        raise NotImplementedError("gather with batch_dims")
    positions = torch.as_tensor(indices, dtype=torch.int64)
    x = tensor(x)
    axis %= x.ndim
    flat = x.index_select(axis, torch.where(positions < 0, positions + x.shape[axis], positions).reshape(-1))
    return flat.reshape((*x.shape[:axis], *positions.shape, *x.shape[axis + 1 :]))


def tile(x: Tensor, reps: Numbers) -> Tensor:
    return x.tile(integers(reps))


def fill(shape: Numbers, value: float = 0.0) -> Tensor:
    filled = torch.full(integers(shape), value)
    return filled.to(torch.int32) if filled.dtype == torch.int64 else filled


KERNELS: dict[str, Callable[..., Any]] = {
    "identity": identity,
    "shape": shape,
    "reshape": reshape,
    "transpose": transpose,
    "expand_dims": expand_dims,
    "squeeze": squeeze,
    "concat": concat,
    "stack": stack,
    "split": split,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "pad": pad,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "gather": gather,
    "tile": tile,
    "fill": fill,
}
