"""Every MIL operation that the executor knows, alone: a one-operation package against torch's or NumPy's own answer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from mobilesam_export.targets.coreml.executor.kernels import KERNELS
from tests.targets.coreml.mil_programs import execute

# Same float32 arithmetic, at most another order of sums over a few hundred products.
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}
# Each example converts and saves a package (about 30 ms): a few, always the same ones.
few = settings(max_examples=8, deadline=None, derandomize=True)

Floats = NDArray[np.float32]
shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6)
seeds = st.integers(0, 1000)


def normal(shape: tuple[int, ...], seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def check(build: Callable[..., Any], expected: Any, *inputs: NDArray[Any], **tolerance: float) -> None:
    """The package's outputs equal ``expected`` (one array, or a sequence), in value and shape."""
    results = execute(build, *inputs)
    expected = expected if isinstance(expected, list | tuple) else [expected]
    assert len(results) == len(expected)
    for got, want in zip(results, expected, strict=True):
        want = np.asarray(want)
        assert got.shape == want.shape
        np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), **(tolerance or TOLERANCE))


UNARY: dict[str, tuple[Callable[..., Any], Callable[[torch.Tensor], torch.Tensor]]] = {
    "relu": (mb.relu, torch.relu),
    "sigmoid": (mb.sigmoid, torch.sigmoid),
    "silu": (mb.silu, F.silu),
    "tanh": (mb.tanh, torch.tanh),
    "erf": (mb.erf, torch.erf),
    "exp": (mb.exp, torch.exp),
    "square": (mb.square, torch.square),
    "abs": (mb.abs, torch.abs),
    "sign": (mb.sign, torch.sign),
    "floor": (mb.floor, torch.floor),
    "ceil": (mb.ceil, torch.ceil),
    "round": (mb.round, torch.round),
    "sin": (mb.sin, torch.sin),
    "cos": (mb.cos, torch.cos),
    "identity": (mb.identity, lambda x: x),
    "sqrt": (lambda x: mb.sqrt(x=mb.abs(x=x)), lambda x: x.abs().sqrt()),
    "rsqrt": (lambda x: mb.rsqrt(x=mb.square(x=x), epsilon=1e-3), lambda x: torch.rsqrt(x * x + 1e-3)),
    "inverse": (lambda x: mb.inverse(x=mb.square(x=x), epsilon=1e-2), lambda x: 1 / (x * x + 1e-2)),
    "log": (lambda x: mb.log(x=mb.square(x=x), epsilon=1e-3), lambda x: torch.log(x * x + 1e-3)),
    "clip": (lambda x: mb.clip(x=x, alpha=-0.5, beta=0.25), lambda x: x.clamp(-0.5, 0.25)),
    "leaky_relu": (lambda x: mb.leaky_relu(x=x, alpha=0.1), lambda x: F.leaky_relu(x, 0.1)),
    "gelu": (lambda x: mb.gelu(x=x, mode="EXACT"), F.gelu),
}


@pytest.mark.parametrize("kind", UNARY)
@few
@given(shape=shapes, seed=seeds)
def test_unary_operations_follow_torch(kind: str, shape: tuple[int, ...], seed: int) -> None:
    build, function = UNARY[kind]
    x = normal(shape, seed) * 3
    check(lambda x: build(x=x), function(torch.from_numpy(x)), x)


@pytest.mark.parametrize(("mode", "approximate"), [("EXACT", "none"), ("TANH_APPROXIMATION", "tanh")])
def test_gelu_follows_its_mode(mode: str, approximate: str) -> None:
    x = normal((3, 50), 0) * 3
    check(lambda x: mb.gelu(x=x, mode=mode), F.gelu(torch.from_numpy(x), approximate=approximate), x)


def test_gelu_by_sigmoid_is_the_swish_with_1702() -> None:
    x = normal((3, 50), 0) * 3
    check(lambda x: mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"), x / (1 + np.exp(-1.702 * x)), x)


BINARY: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "add": (mb.add, np.add),
    "sub": (mb.sub, np.subtract),
    "mul": (mb.mul, np.multiply),
    "real_div": (mb.real_div, np.divide),
    "floor_div": (mb.floor_div, np.floor_divide),
    "mod": (mb.mod, np.mod),
    "maximum": (mb.maximum, np.maximum),
    "minimum": (mb.minimum, np.minimum),
    "pow": (lambda x, y: mb.pow(x=mb.abs(x=x), y=y), lambda x, y: np.abs(x) ** y),
}
COMPARISONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "equal": (mb.equal, np.equal),
    "not_equal": (mb.not_equal, np.not_equal),
    "greater": (mb.greater, np.greater),
    "greater_equal": (mb.greater_equal, np.greater_equal),
    "less": (mb.less, np.less),
    "less_equal": (mb.less_equal, np.less_equal),
}


@pytest.mark.parametrize("kind", BINARY)
@few
@given(both=hnp.mutually_broadcastable_shapes(num_shapes=2, min_dims=1, max_dims=4, max_side=4), seed=seeds)
def test_binary_operations_broadcast_like_numpy(kind: str, both: hnp.BroadcastableShapes, seed: int) -> None:
    build, function = BINARY[kind]
    x, y = normal(both.input_shapes[0], seed), np.abs(normal(both.input_shapes[1], seed + 1)) + 0.5
    check(lambda x, y: build(x=x, y=y), function(x, y), x, y)


@pytest.mark.parametrize("kind", COMPARISONS)
def test_comparisons_tell_equal_from_less_and_greater(kind: str) -> None:
    build, function = COMPARISONS[kind]
    x = np.array([[-2.0, -1.0, 0.0, 1.0, 2.0]], np.float32)
    y = np.array([[-1.0], [0.0], [1.5]], np.float32)
    check(lambda x, y: mb.cast(x=build(x=x, y=y), dtype="fp32"), function(x, y), x, y)
    # against a constant of rank 0, which reaches the kernel as a Python number
    check(lambda x: mb.cast(x=build(x=x, y=np.float32(1.0)), dtype="fp32"), function(x, 1.0), x)


@pytest.mark.parametrize(
    ("kind", "function"),
    [("logical_and", np.logical_and), ("logical_or", np.logical_or), ("logical_xor", np.logical_xor)],
)
def test_logic_follows_its_truth_table(kind: str, function: Callable[..., Any]) -> None:
    x, y = np.array([-1, -1, 1, 1], np.float32), np.array([-1, 1, -1, 1], np.float32)

    def build(x: Any, y: Any) -> Any:
        both = getattr(mb, kind)(x=mb.greater(x=x, y=0.0), y=mb.greater(x=y, y=0.0))
        return mb.cast(x=both, dtype="fp32")

    check(build, function(x > 0, y > 0), x, y)


def test_logical_not_inverts() -> None:
    x = np.array([-1, 0, 1], np.float32)
    check(lambda x: mb.cast(x=mb.logical_not(x=mb.greater(x=x, y=0.0)), dtype="fp32"), ~(x > 0), x)


def test_select_takes_a_where_true_and_b_elsewhere() -> None:
    x, y = normal((2, 3), 0), normal((2, 3), 1)
    check(lambda x, y: mb.select(cond=mb.greater(x=x, y=y), a=x, b=y), np.maximum(x, y), x, y)


def test_cast_to_integer_cuts_towards_zero() -> None:
    x = np.array([-1.7, -0.2, 0.2, 1.7], np.float32)
    check(lambda x: mb.cast(x=mb.cast(x=x, dtype="int32"), dtype="fp32"), np.trunc(x), x)


@few
@given(
    seed=seeds,
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pad=st.lists(st.integers(0, 2), min_size=4, max_size=4),
)
def test_convolution_with_any_stride_dilation_group_and_uneven_padding(
    seed: int,
    groups: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pad: list[int],
) -> None:
    x, weight, bias = normal((1, 4, 9, 8), seed), normal((8, 4 // groups, *kernel), seed + 1), normal((8,), seed + 2)
    padded = F.pad(torch.from_numpy(x), (pad[2], pad[3], pad[0], pad[1]))  # MIL: top, bottom, left, right
    expected = F.conv2d(
        padded, torch.from_numpy(weight), torch.from_numpy(bias), strides, dilation=dilations, groups=groups
    )
    settings = {"strides": list(strides), "dilations": list(dilations), "groups": groups}
    check(lambda x: mb.conv(x=x, weight=weight, bias=bias, pad_type="custom", pad=pad, **settings), expected, x)


@pytest.mark.parametrize("pad_type", ["same", "same_lower", "valid"])
def test_convolution_pads_by_name(pad_type: str) -> None:
    x, weight = normal((1, 2, 7, 7), 0), normal((3, 2, 4, 4), 1)
    # a kernel of 4 at stride 1 wants 3 more rows: one before and two after, or the other way round
    before = {"same": 1, "same_lower": 2, "valid": 0}[pad_type]
    after = 0 if pad_type == "valid" else 3 - before
    padded = F.pad(torch.from_numpy(x), (before, after, before, after))
    check(lambda x: mb.conv(x=x, weight=weight, pad_type=pad_type), F.conv2d(padded, torch.from_numpy(weight)), x)


@few
@given(
    seed=seeds,
    kernel=st.tuples(st.integers(2, 3), st.integers(2, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    pad=st.lists(st.integers(0, 1), min_size=4, max_size=4),
)
def test_the_greatest_of_a_square_is_never_of_its_padding(
    seed: int, kernel: tuple[int, int], strides: tuple[int, int], pad: list[int]
) -> None:
    x = normal((1, 3, 9, 8), seed) - 5  # below zero
    padded = F.pad(torch.from_numpy(x), (pad[2], pad[3], pad[0], pad[1]), value=-torch.inf)
    expected = F.max_pool2d(padded, kernel, strides)
    settings = {"kernel_sizes": list(kernel), "strides": list(strides)}
    check(lambda x: mb.max_pool(x=x, pad_type="custom", pad=pad, **settings), expected, x)
    if not any(pad):
        check(lambda x: mb.max_pool(x=x, pad_type="valid", **settings), expected, x)


def test_the_greatest_of_squares_padded_by_name() -> None:
    x = normal((1, 2, 7, 7), 0)
    expected = F.max_pool2d(F.pad(torch.from_numpy(x), (1, 2, 1, 2), value=-torch.inf), 4, 1)
    check(lambda x: mb.max_pool(x=x, kernel_sizes=[4, 4], strides=[1, 1], pad_type="same"), expected, x)


@few
@given(
    seed=seeds,
    groups=st.sampled_from([1, 2]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    pad=st.integers(0, 1),
)
def test_transposed_convolution_follows_torch(seed: int, groups: int, kernel: int, stride: int, pad: int) -> None:
    x, weight, bias = normal((1, 4, 5, 3), seed), normal((4, 3, kernel, kernel), seed + 1), normal((3 * groups,), seed)
    pad = min(pad, (kernel - 1) // 2)
    tensors = (torch.from_numpy(array) for array in (x, weight, bias))
    expected = F.conv_transpose2d(*tensors, stride, pad, groups=groups)
    check(
        lambda x: mb.conv_transpose(
            x=x, weight=weight, bias=bias, strides=[stride] * 2, pad_type="custom", pad=[pad] * 4, groups=groups
        ),
        expected,
        x,
    )


def test_transposed_convolution_with_an_output_padding_holds_the_bias_there() -> None:
    x, weight, bias = normal((1, 2, 3, 3), 0), normal((2, 4, 2, 2), 1), normal((4,), 2)
    expected = F.conv_transpose2d(*map(torch.from_numpy, (x, weight, bias)), stride=3, output_padding=1)
    shape = list(expected.shape)
    assert shape[2:] == [9, 9]
    check(lambda x: mb.conv_transpose(x=x, weight=weight, bias=bias, strides=[3, 3], output_shape=shape), expected, x)


@few
@given(
    seed=seeds,
    left=st.booleans(),
    right=st.booleans(),
    batch=st.sampled_from([(), (3,), (2, 3)]),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)),
)
def test_matmul_with_transposed_operands(
    seed: int, left: bool, right: bool, batch: tuple[int, ...], sizes: tuple[int, int, int]
) -> None:
    rows, inner, columns = sizes
    x = normal((*batch, inner, rows) if left else (*batch, rows, inner), seed)
    y = normal((*batch, columns, inner) if right else (*batch, inner, columns), seed + 1)
    expected = (np.swapaxes(x, -1, -2) if left else x) @ (np.swapaxes(y, -1, -2) if right else y)
    check(lambda x, y: mb.matmul(x=x, y=y, transpose_x=left, transpose_y=right), expected, x, y)


def test_linear_multiplies_by_the_transposed_weight() -> None:
    x, weight, bias = normal((2, 5), 0), normal((7, 5), 1), normal((7,), 2)
    check(lambda x: mb.linear(x=x, weight=weight, bias=bias), x @ weight.T + bias, x)


REDUCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "reduce_mean": (mb.reduce_mean, np.mean),
    "reduce_sum": (mb.reduce_sum, np.sum),
    "reduce_max": (mb.reduce_max, np.max),
    "reduce_min": (mb.reduce_min, np.min),
}


@pytest.mark.parametrize("kind", REDUCTIONS)
@few
@given(data=st.data(), shape=hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), keep=st.booleans(), seed=seeds)
def test_reductions_over_any_axes(
    kind: str, data: st.DataObject, shape: tuple[int, ...], keep: bool, seed: int
) -> None:
    axes = data.draw(st.lists(st.integers(-len(shape), -1), min_size=1, max_size=len(shape) - 1, unique=True))
    build, function = REDUCTIONS[kind]
    x = normal(shape, seed)
    check(lambda x: build(x=x, axes=axes, keep_dims=keep), function(x, axis=tuple(axes), keepdims=keep), x)


def test_argmax_counts_along_its_axis() -> None:
    x = normal((3, 4, 5), 0)
    check(lambda x: mb.reduce_argmax(x=x, axis=1, keep_dims=False), x.argmax(1), x)


@few
@given(data=st.data(), shape=shapes, seed=seeds)
def test_softmax_along_any_axis(data: st.DataObject, shape: tuple[int, ...], seed: int) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = normal(shape, seed) * 5
    check(lambda x: mb.softmax(x=x, axis=axis), torch.from_numpy(x).softmax(axis), x)


@few
@given(data=st.data(), shape=hnp.array_shapes(min_dims=2, max_dims=4, min_side=2, max_side=6), seed=seeds)
def test_layer_norm_over_any_axes_with_and_without_affine(
    data: st.DataObject, shape: tuple[int, ...], seed: int
) -> None:
    axes = sorted(data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, max_size=2, unique=True)))
    affine = data.draw(st.booleans())
    x = normal(shape, seed) * 3
    centred = x - x.mean(tuple(axes), keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(tuple(axes), keepdims=True) + 1e-3)
    arguments: dict[str, Any] = {"axes": axes, "epsilon": np.float32(1e-3)}
    if affine:
        over = tuple(shape[axis] for axis in axes)
        gamma, beta = normal(over, seed + 1), normal(over, seed + 2)
        spread = [size if axis in axes else 1 for axis, size in enumerate(shape)]
        expected = expected * gamma.reshape(spread) + beta.reshape(spread)
        arguments |= {"gamma": gamma, "beta": beta}
    check(lambda x: mb.layer_norm(x=x, **arguments), expected, x, rtol=1e-4, atol=1e-4)  # divides by small deviations


def test_batch_norm_uses_the_given_statistics() -> None:
    x, mean, variance = normal((1, 3, 4, 4), 0), normal((3,), 1), np.abs(normal((3,), 2)) + 0.1
    gamma, beta = normal((3,), 3), normal((3,), 4)
    expected = F.batch_norm(*map(torch.from_numpy, (x, mean, variance, gamma, beta)), eps=1e-3)
    check(
        lambda x: mb.batch_norm(x=x, mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=np.float32(1e-3)),
        expected,
        x,
    )


TESTED_IN_LAYOUT = {
    "shape", "reshape", "transpose", "expand_dims", "squeeze", "concat", "stack", "split", "slice_by_index",
    "slice_by_size", "pad", "pixel_shuffle", "pixel_unshuffle", "gather", "tile", "fill", "quantize", "dequantize",
}  # fmt: skip
TESTED_HERE = {
    *UNARY, *BINARY, *COMPARISONS, *REDUCTIONS, "logical_and", "logical_or", "logical_xor", "logical_not", "select",
    "cast", "conv", "conv_transpose", "max_pool", "matmul", "linear", "reduce_argmax", "softmax", "layer_norm",
    "batch_norm",
}  # fmt: skip


def test_no_kernel_is_left_untested() -> None:
    assert set(KERNELS) == TESTED_HERE | TESTED_IN_LAYOUT
