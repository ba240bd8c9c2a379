"""float32 weights stored as float16, and constants that are not worked out beforehand."""

import math
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mobilesam_export.rewrites.channels_first.positions import ImagePositions
from mobilesam_export.rewrites.folded_decoder import fold_decoder
from mobilesam_export.targets.coreml.executor import MLProgram
from mobilesam_export.targets.coreml.executor.operations import TensorType
from mobilesam_export.targets.coreml.executor.package import open_package
from mobilesam_export.targets.coreml.storage import SMALLEST_WEIGHT, pipeline_storing_float16
from reference.mobile_sam import MobileSam
from tests.targets.coreml.mil_programs import execute

Pair = tuple[Path, Path]
MEGABYTE = 10**6


def _operations(package: Path) -> list[Any]:
    function = open_package(package).spec.mlProgram.functions["main"]
    return list(function.block_specializations[function.opset].operations)


def _constants(package: Path) -> dict[str, TensorType]:
    return MLProgram(package).body.constant_types


@pytest.mark.parametrize("target", [ct.target.iOS16, ct.target.iOS17, ct.target.iOS18])
@settings(max_examples=6, deadline=None, derandomize=True)
@given(source=hnp.arrays(np.float16, hnp.array_shapes(max_dims=4, max_side=5), elements=st.floats(-300, 300, width=16)))
def test_a_widened_constant_is_its_float16_numbers(target: Any, source: np.ndarray) -> None:
    def build(x: Any) -> Any:
        return mb.add(x=x, y=mb.constexpr_cast(source_val=source, output_dtype="fp32"))

    (got,) = execute(build, np.zeros(source.shape, np.float32), target=target)
    np.testing.assert_array_equal(got, source.astype(np.float32))


def _saved(path: Path, weight: np.ndarray, is_stored: bool = True) -> Path:
    @mb.program(input_specs=[mb.TensorSpec((1, 64, 2, 2), dtype=types.fp32)], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        return mb.conv(x=x, weight=mb.const(val=weight, name="layers.0.weight"))

    ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=pipeline_storing_float16(lambda name: is_stored and name == "layers_0_weight"),
        skip_model_load=True,
    ).save(str(path))
    return path


def test_a_float32_weight_is_rounded_once_and_its_arithmetic_stays_float32(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((64, 64, 1, 1), dtype=np.float32) * 500  # as sharp attention has them
    x = generator.standard_normal((1, 64, 2, 2), dtype=np.float32)
    half = _saved(tmp_path / "half.mlpackage", weight)
    kinds = [op.type for op in _operations(half)]
    assert kinds.count("constexpr_cast") == 1 and "cast" not in kinds
    (got,) = MLProgram(half).run({"x": x}).values()
    expected = np.einsum("oi,bihw->bohw", weight.astype(np.float16).astype(np.float64)[:, :, 0, 0], x)
    # float32 sums of 64 products; a result rounded to float16 would be off by 2^-12 of itself
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    (whole,) = MLProgram(_saved(tmp_path / "whole.mlpackage", weight, is_stored=False)).run({"x": x}).values()
    assert 1e-5 < np.abs(got - whole).max() / np.abs(whole).max() < 2**-11


def test_weights_beyond_float16_and_small_ones_are_left_alone(tmp_path: Path) -> None:
    beyond = np.full((64, 64, 1, 1), 70000, np.float32)
    small = np.ones((SMALLEST_WEIGHT // 64 - 1, 64, 1, 1), np.float32)
    for name, weight in (("beyond", beyond), ("small", small)):
        package = _saved(tmp_path / f"{name}.mlpackage", weight)
        assert "constexpr_cast" not in [op.type for op in _operations(package)], name


def test_the_decoders_large_float32_weights_are_stored_as_float16(packages: Pair) -> None:
    stored_wide, types = [], _constants(packages[1])
    for op in _operations(packages[1]):
        shape = [dimension.constant.size for dimension in op.outputs[0].type.tensorType.dimensions]
        is_large = op.type == "const" and math.prod(shape) >= SMALLEST_WEIGHT and len(shape) > 1
        if is_large and types[op.outputs[0].name].element == "FLOAT32":
            stored_wide.append(op.outputs[0].name)
    # What a coordinate becomes a position by, and the two learned tables beside it, keep every bit.
    assert all(name.startswith(("point_embedding_", "image_pe_")) for name in stored_wide), stored_wide
    assert "image_pe_row_sines" in stored_wide


def test_float16_packages_keep_to_their_size(packages: Pair) -> None:
    # At 1024 the tables of positions take 0.1 MB more, and the limit there is 24.6.
    size = sum(file.stat().st_size for package in packages for file in package.rglob("*") if file.is_file())
    assert size < 24.4 * MEGABYTE


@pytest.mark.parametrize("image_size", [224, 1024])
def test_positions_from_tables_are_the_references(image_size: int) -> None:
    sam = MobileSam(image_size=image_size)
    with torch.inference_mode():
        # Sums of two products of float32 sines: an ulp or two of 1, and the reference's own angles are float32 too
        got, expected = ImagePositions(fold_decoder(sam))(), sam.prompt_encoder.image_pe()
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-5)


def test_positions_are_not_worked_out_beforehand(packages: Pair, sam: MobileSam) -> None:
    grid = sam.image_size // 16
    shapes = [constant.shape for constant in _constants(packages[1]).values()]
    assert not [shape for shape in shapes if len(shape) >= 2 and math.prod(n or 0 for n in shape) == 256 * grid**2]
    assert (1, 128, grid, 1) in shapes and (1, 128, 1, grid) in shapes
