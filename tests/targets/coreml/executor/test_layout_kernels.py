"""The MIL operations that move values or quantise them, alone, against NumPy."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.targets.coreml.executor.test_kernels import few, normal, seeds
from tests.targets.coreml.mil_programs import execute

EXACT = {"rtol": 0.0, "atol": 0.0}


def check(build: Any, expected: Any, *inputs: Any) -> None:
    """Moved values are the same values."""
    expected = expected if isinstance(expected, list | tuple) else [expected]
    results = execute(build, *inputs)
    assert len(results) == len(expected)
    for got, want in zip(results, expected, strict=True):
        np.testing.assert_array_equal(got, np.asarray(want))


@few
@given(seed=seeds, order=st.permutations([2, 3, 4, 1]))
def test_reshape_and_transpose(seed: int, order: list[int]) -> None:
    x = normal((4, 6), seed)
    check(lambda x: mb.reshape(x=x, shape=order), x.reshape(order), x)
    check(lambda x: mb.reshape(x=x, shape=[order[0], -1]), x.reshape(order[0], -1), x)
    perm = [int(axis) for axis in np.argsort(order)]
    y = normal((2, 3, 4, 5), seed)
    check(lambda x: mb.transpose(x=x, perm=perm), y.transpose(perm), y)


def test_reshape_keeps_a_size_marked_zero() -> None:
    x = normal((4, 6, 2), 0)
    check(lambda x: mb.reshape(x=x, shape=[0, 3, 4]), x.reshape(4, 3, 4), x)


def test_expand_dims_and_squeeze_count_axes_of_the_result() -> None:
    x = normal((3, 4), 0)
    check(lambda x: mb.expand_dims(x=x, axes=[0, 2]), x[None, :, None], x)
    check(lambda x: mb.expand_dims(x=x, axes=[-1]), x[..., None], x)
    y = normal((1, 3, 1, 4), 0)
    check(lambda x: mb.squeeze(x=x, axes=[0, 2]), y[0, :, 0], y)
    check(lambda x: mb.squeeze(x=x, axes=[-2]), y[:, :, 0], y)


@few
@given(axis=st.integers(-3, 2), seed=seeds)
def test_concat_stack_and_split_along_any_axis(axis: int, seed: int) -> None:
    x, y = normal((2, 4, 6), seed), normal((2, 4, 6), seed + 1)
    check(lambda x, y: mb.concat(values=[x, y], axis=axis), np.concatenate([x, y], axis), x, y)
    check(lambda x, y: mb.stack(values=[x, y], axis=axis), np.stack([x, y], axis), x, y)
    check(lambda x: tuple(mb.split(x=x, num_splits=2, axis=axis)), np.split(x, 2, axis), x)
    sizes = [1, x.shape[axis] - 1]
    check(lambda x: tuple(mb.split(x=x, split_sizes=sizes, axis=axis)), np.split(x, [1], axis), x)


def test_interleaved_concat_alternates() -> None:
    x, y = normal((2, 3), 0), normal((2, 3), 1)
    expected = np.stack([x, y], 2).reshape(2, 6)
    check(lambda x, y: mb.concat(values=[x, y], axis=1, interleave=True), expected, x, y)


@few
@given(index=hnp.basic_indices((4, 6, 5), allow_newaxis=False, allow_ellipsis=False), seed=seeds)
def test_slices_follow_numpy_negative_strides_included(index: Any, seed: int) -> None:
    x = normal((4, 6, 5), seed)
    index = index if isinstance(index, tuple) else (index,)
    index = (*index, *[slice(None)] * (3 - len(index)))
    expected = x[index]
    if expected.size == 0:
        return  # MIL has no empty tensors
    begin, end, stride = [0] * 3, [0] * 3, [1] * 3
    begin_mask, end_mask, squeeze_mask = [False] * 3, [False] * 3, [False] * 3
    for axis, item in enumerate(index):
        if isinstance(item, slice):
            begin_mask[axis], end_mask[axis] = item.start is None, item.stop is None
            begin[axis], end[axis], stride[axis] = item.start or 0, item.stop or 0, item.step or 1
        else:
            squeeze_mask[axis], begin[axis] = True, int(item)
            end[axis] = int(item) + 1 if int(item) != -1 else 2**31 - 1

    def build(x: Any) -> Any:
        return mb.slice_by_index(
            x=x,
            begin=begin,
            end=end,
            stride=stride,
            begin_mask=begin_mask,
            end_mask=end_mask,
            squeeze_mask=squeeze_mask,
        )

    check(build, expected, x)


def test_shapes_are_computed_from_numbers_of_rank_zero() -> None:
    x = normal((2, 6), 0)

    def build(x: Any) -> Any:
        half = mb.floor_div(x=mb.gather(x=mb.shape(x=x), indices=1, axis=0), y=2)
        return mb.reshape(x=x, shape=mb.concat(values=[half, 4], axis=0))

    check(build, x.reshape(3, 4), x)


def test_slice_by_size_takes_all_that_is_left_for_minus_one() -> None:
    x = normal((4, 6), 0)
    check(lambda x: mb.slice_by_size(x=x, begin=[1, 2], size=[2, -1]), x[1:3, 2:], x)


@pytest.mark.parametrize(
    ("mode", "numpy_mode"), [("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge")]
)
@few
@given(pad=st.lists(st.integers(0, 3), min_size=4, max_size=4), seed=seeds)
def test_pads_belong_to_the_last_axes(mode: str, numpy_mode: str, pad: list[int], seed: int) -> None:
    x = normal((2, 3, 4, 5), seed)
    widths = [(0, 0), (0, 0), (pad[0], pad[1]), (pad[2], pad[3])]
    extra = {"constant_values": 1.5} if mode == "constant" else {}
    expected = np.pad(x, widths, mode=numpy_mode, **extra)  # type: ignore[call-overload]
    check(lambda x: mb.pad(x=x, pad=pad, mode=mode, constant_val=1.5), expected, x)


@few
@given(factor=st.integers(1, 3), seed=seeds)
def test_pixel_shuffles_are_torchs(factor: int, seed: int) -> None:
    x = normal((1, 2 * factor**2, 3, 4), seed)
    check(lambda x: mb.pixel_shuffle(x=x, upscale_factor=factor), F.pixel_shuffle(torch.from_numpy(x), factor), x)
    y = normal((1, 2, 3 * factor, 4 * factor), seed)
    expected = F.pixel_unshuffle(torch.from_numpy(y), factor)
    check(lambda x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(factor)), expected, y)


@few
@given(axis=st.integers(-3, 2), seed=seeds)
def test_gather_takes_whole_slices(axis: int, seed: int) -> None:
    x = normal((3, 4, 5), seed)
    check(lambda x: mb.gather(x=x, indices=[2, 0, 1], axis=axis), x.take([2, 0, 1], axis), x)
    check(lambda x: mb.gather(x=x, indices=1, axis=axis), x.take(1, axis), x)
    check(lambda x: mb.gather(x=x, indices=[[0, -1]], axis=axis), x.take([[0, -1]], axis), x)


def test_shape_tile_and_fill() -> None:
    x = normal((2, 3), 0)
    check(lambda x: mb.tile(x=x, reps=[2, 3]), np.tile(x, (2, 3)), x)
    check(lambda x: mb.add(x=x, y=mb.fill(shape=mb.shape(x=x), value=2.5)), x + np.float32(2.5), x)


@few
@given(seed=seeds, axis=st.sampled_from([None, 0, 1]), dtype=st.sampled_from(["int8", "uint8"]))
def test_quantisation_rounds_clips_and_comes_back(seed: int, axis: int | None, dtype: str) -> None:
    x = normal((3, 4), seed) * 3
    scale = np.float32(0.02) if axis is None else (np.abs(normal((x.shape[axis],), seed + 1)) * 0.02 + 0.005)
    zero = np.array(5, dtype) if axis is None else np.arange(x.shape[axis]).astype(dtype)
    extra: dict[str, Any] = {} if axis is None else {"axis": axis}
    spread = [-1 if a == axis else 1 for a in range(2)]
    scales = scale if axis is None else scale.reshape(spread)
    zeros = zero.astype(np.float32) if axis is None else zero.astype(np.float32).reshape(spread)
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    steps = np.clip(np.rint(x / scales) + zeros, low, high)

    def build(x: Any) -> Any:
        quantised = mb.quantize(input=x, scale=scale, zero_point=zero, output_dtype=dtype, **extra)
        return mb.dequantize(input=quantised, scale=scale, zero_point=zero, **extra)

    (got,) = execute(build, x)
    np.testing.assert_allclose(got, (steps - zeros) * scales, rtol=1e-6, atol=1e-6)
