"""The executor's thrift changes no value: results in place, large convolutions in parts, rounding in blocks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from numpy.typing import NDArray

from mobilesam_export.targets.coreml.executor import MLProgram, memory
from mobilesam_export.targets.coreml.executor.kernels import convolution
from mobilesam_export.targets.coreml.executor.kernels.reduction import softmax
from tests.targets.coreml.mil_programs import save_program

Floats = NDArray[np.float32]


def normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _twice(x: Any) -> Any:
    return mb.mul(x=x, y=np.float32(2))


def _read_again(x: Any) -> Any:
    twice = _twice(x)
    once_more = mb.add(x=twice, y=np.float32(1))
    return mb.mul(x=twice, y=once_more)


def _viewed(x: Any) -> Any:
    twice = _twice(x)
    view = mb.reshape(x=twice, shape=(6, 2))
    summed = mb.add(x=twice, y=np.float32(1))
    return mb.mul(x=mb.reshape(x=summed, shape=(6, 2)), y=view)


def _viewed_twice(x: Any) -> Any:
    twice = _twice(x)
    view = mb.squeeze(x=mb.expand_dims(x=twice, axes=(0,)), axes=(0,))
    summed = mb.add(x=twice, y=np.float32(1))
    return mb.mul(x=summed, y=view)


def _its_own_transpose(x: Any) -> Any:
    twice = _twice(mb.slice_by_index(x=x, begin=(0, 0), end=(3, 3)))
    return mb.add(x=twice, y=mb.transpose(x=twice, perm=(1, 0)))


def _broadcast(x: Any) -> Any:
    row = _twice(mb.slice_by_index(x=x, begin=(0, 0), end=(1, 4)))
    return mb.add(x=row, y=_twice(x))


def _a_constant(x: Any) -> Any:
    constant = mb.identity(x=np.full((3, 4), 3, np.float32))
    return mb.add(x=constant, y=x)


def _returned(x: Any) -> Any:
    twice = _twice(x)
    return twice, mb.add(x=twice, y=np.float32(1))


PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[[Floats], Any]]] = {
    "a value that is read again": (_read_again, lambda x: 2 * x * (2 * x + 1)),
    "a value with a view that is read later": (_viewed, lambda x: ((2 * x + 1) * 2 * x).reshape(6, 2)),
    "a value with a view of a view": (_viewed_twice, lambda x: (2 * x + 1) * 2 * x),
    "a value and its own transpose": (_its_own_transpose, lambda x: 2 * x[:3, :3] + 2 * x[:3, :3].T),
    "a value that is broadcast": (_broadcast, lambda x: 2 * x[:1] + 2 * x),
    "a constant": (_a_constant, lambda x: x + 3),
    "a result of the program": (_returned, lambda x: (2 * x, 2 * x + 1)),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_no_result_overwrites(tmp_path: Path, what: str) -> None:
    build, function = PROGRAMS[what]
    x = normal(3, 4)
    program = MLProgram(save_program(tmp_path / "tiny.mlpackage", build, [x]))
    expected = function(x)
    for _ in range(2):  # a second run reads the same constants
        results = list(program.run({"x": x}).values())
        for got, want in zip(results, expected if isinstance(expected, tuple) else (expected,), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_array_equal(x, normal(3, 4))


def test_the_encoder_adds_and_activates_in_place(packages: tuple[Path, Path]) -> None:
    steps = [step for step in MLProgram(packages[0])._steps if step.operation.kind in ("add", "gelu")]
    assert len(steps) == 55
    assert all(step.overwrites for step in steps)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("weight", "settings"),
    [
        ((7, 40, 1, 1), {}),
        ((40, 1, 3, 3), {"groups": 40, "pad_type": "custom", "pad": [1] * 4}),
        ((40, 1, 3, 3), {"groups": 40, "pad_type": "custom", "pad": [1] * 4, "strides": [2, 2]}),
        ((40, 1, 5, 5), {"groups": 40, "pad_type": "same", "dilations": [2, 1]}),
        ((80, 1, 3, 3), {"groups": 40}),  # two results a channel: no depthwise convolution in parts
        ((7, 40, 1, 1), {"strides": [2, 2]}),
        ((7, 40, 1, 1), {"pad_type": "custom", "pad": [1, 1, 1, 1]}),
        ((7, 40, 3, 3), {}),
    ],
)
def test_a_large_convolution_equals_a_small_one(
    monkeypatch: pytest.MonkeyPatch, weight: tuple[int, ...], settings: dict[str, Any], with_bias: bool
) -> None:
    x, kernel = torch.from_numpy(normal(1, 40, 11, 9)), torch.from_numpy(normal(*weight, seed=1))
    bias = torch.from_numpy(normal(weight[0], seed=2)) if with_bias else None
    expected = convolution.conv(x, kernel, bias, **settings)
    monkeypatch.setattr(memory, "LARGE", 1)
    got = convolution.conv(x, kernel, bias, **settings)
    assert got.shape == expected.shape
    # The same sums; libraries may add their terms in another order.
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_large_result_is_known_before_it_is_computed() -> None:
    x, weight = torch.zeros(1, 4, 11, 9), torch.zeros(6, 4, 3, 3)
    for settings in (([1, 1], [0, 0], [1, 1]), ([2, 1], [1, 0], [1, 2]), ([3, 2], [2, 1], [2, 1])):
        assert convolution._result_size(x, weight, *settings) == F.conv2d(x, weight, None, *settings).numel()


@pytest.mark.parametrize("size", [0, 1, memory._BLOCK - 1, memory._BLOCK, 2 * memory._BLOCK + 3])
def test_rounding_in_place_is_rounding_to_float16(size: int) -> None:
    random = np.random.default_rng(size)
    values = (random.standard_normal(size) * 10.0 ** random.integers(-9, 6, size)).astype(np.float32)
    values[: min(size, 6)] = [np.nan, np.inf, -np.inf, 65519.0, 65520.0, 2.0**-25][: min(size, 6)]
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).astype(np.float32)
    got = torch.from_numpy(values.copy())
    memory.round_to_float16(got)
    np.testing.assert_array_equal(got.numpy(), expected)


def test_rounding_in_place_keeps_to_a_strided_view() -> None:
    whole = torch.from_numpy(normal(6, 8))
    before = whole.clone()
    memory.round_to_float16(whole[:, :3])
    assert torch.equal(whole[:, :3], before[:, :3].half().float())
    assert torch.equal(whole[:, 3:], before[:, 3:])


def test_a_cast_to_float16_leaves_what_it_was_cast_from(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        twice = _twice(x)
        half = mb.cast(x=mb.cast(x=twice, dtype="fp16"), dtype="fp32")
        return mb.sub(x=twice, y=half)

    x = normal(3, 4)
    (lost,) = MLProgram(save_program(tmp_path / "cast.mlpackage", build, [x])).run({"x": x}).values()
    np.testing.assert_array_equal(lost, 2 * x - (2 * x).astype(np.float16).astype(np.float32))
    assert np.abs(lost).max() > 0


def test_softmax_has_no_subnormal_weights() -> None:
    scores = torch.linspace(-110.0, 0.0, 1000)
    expected, got = scores.softmax(0), softmax(scores)
    subnormal = (expected > 0) & (expected < torch.finfo(torch.float32).tiny)
    assert subnormal.any() and not got[subnormal].any()
    assert torch.equal(got[~subnormal], expected[~subnormal])


def test_an_observed_value_is_not_rounded_yet(tmp_path: Path) -> None:
    x = normal(2, 500)
    path = save_program(
        tmp_path / "half.mlpackage",
        lambda x: mb.gelu(x=mb.mul(x=x, y=x), mode="EXACT"),
        [x],
        precision=ct.precision.FLOAT16,
    )
    seen: dict[str, Floats] = {}
    MLProgram(path).run({"x": x}, lambda op, _, value: seen.update({op.kind: value.numpy().copy()}))
    half = x.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(seen["mul"], half * half)
    rounded = torch.from_numpy((half * half).astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(seen["gelu"], F.gelu(rounded).numpy())
