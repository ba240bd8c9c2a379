"""Compression recipes, calibration and headroom."""

from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilesam_export.targets.coreml.executor import MLProgram
from mobilesam_export.targets.coreml.executor.headroom import measure_headroom
from mobilesam_export.targets.coreml.precision.activations import activation_ranges
from mobilesam_export.targets.coreml.precision.palettes import k_means, palette_function
from mobilesam_export.targets.coreml.precision.recipes import RECIPES
from mobilesam_export.targets.coreml.precision.samples import decoder_samples, encoder_samples
from mobilesam_export.targets.coreml.runtime import CoreMLRuntime
from mobilesam_export.targets.coreml.write import write
from reference.mobile_sam import MobileSam
from tests.targets.coreml.mil_programs import save_program

Pair = tuple[Path, Path]


def _size(*packages: Path) -> int:
    return sum(file.stat().st_size for package in packages for file in package.rglob("*") if file.is_file())


def _psnr_db(got: np.ndarray, want: np.ndarray) -> float:
    return float(10 * np.log10((want.max() - want.min()) ** 2 / np.square(got - want).mean()))


# recipe: largest part of the float16 size, least PSNR of the embedding. Random weights are near the worst case.
EXPECTED = {
    "int8": (0.562, 47),  # 12.6 MB
    "palette8": (0.562, 47),
    "palette6": (0.505, 43),
    "palette4": (0.43, 32),
    "w8a8": (0.565, 46),
}


def test_every_recipe_is_expected_here() -> None:
    assert set(EXPECTED) == set(RECIPES)
    assert all(recipe.reason and 0 < recipe.mask_iou < 1 for recipe in RECIPES.values())


@pytest.mark.parametrize(
    "precision",
    [name if name in ("int8", "w8a8") else pytest.param(name, marks=pytest.mark.slow) for name in EXPECTED],
)
def test_recipes_shrink_the_packages_and_keep_the_embedding(
    sam: MobileSam, packages: Pair, tmp_path: Path, precision: str
) -> None:
    small = write(sam, tmp_path, precision=precision)
    part, least_db = EXPECTED[precision]
    assert _size(*small) < part * _size(*packages)
    image = encoder_samples(224, limit=1)[0]["image"]
    got, want = (CoreMLRuntime(*pair).encode(image) for pair in (tuple(small), packages))
    assert least_db < _psnr_db(got, want) < 65  # and something did change
    quantised = {op.kind for op in MLProgram(small[0]).operations} & {"quantize", "dequantize"}
    assert bool(quantised) == RECIPES[precision].activations


def test_calibration_counts_every_sample_not_only_the_last(tmp_path: Path) -> None:
    path = save_program(
        tmp_path / "twice.mlpackage", lambda x: mb.mul(x=x, y=2.0, name="twice"), [np.zeros(2, np.float32)]
    )
    samples = [{"x": np.array(values, np.float32)} for values in ([-5, 0], [0, 7], [1, 1])]
    assert activation_ranges(MLProgram(path), samples) == {"x": (-5.0, 7.0), "twice": (-10.0, 14.0)}


def test_samples_cover_every_kind_of_prompt(packages: Pair) -> None:
    encoder, decoder = map(MLProgram, packages)
    images = encoder_samples(224)
    assert len(images) >= 3
    samples = list(decoder_samples(encoder, decoder, images[:1]))
    labels = {float(label) for sample in samples for label in sample["point_labels"].ravel()}
    assert labels == {-2.0, -1.0, 0.0, 1.0, 2.0, 3.0}
    assert {float(sample["has_mask_input"][0]) for sample in samples} == {0.0, 1.0}


def test_headroom_names_the_operation_closest_to_overflow(tmp_path: Path) -> None:
    def build(x: object) -> object:
        x = mb.mul(x=x, y=2.0, name="small")
        x = mb.square(x=x, name="large")
        return mb.real_div(x=x, y=8.0, name="end")

    x = np.array([1.0, -100.0], np.float32)
    path = save_program(tmp_path / "heights.mlpackage", build, [x], precision=ct.precision.FLOAT16)
    headroom = measure_headroom(MLProgram(path), [{"x": x}, {"x": x / 2}])
    assert headroom.worst is not None
    assert headroom.worst.kind == "square"
    assert headroom.worst.magnitude == 40000  # (2 * -100)^2, of the first sample
    assert headroom.worst.used == pytest.approx(40000 / 65504)
    assert len(headroom.warnings) == 1 and "61%" in headroom.warnings[0]
    overflowing = measure_headroom(MLProgram(path), [{"x": x * 2}])
    assert overflowing.worst is not None and overflowing.worst.used > 1


def test_float32_programs_have_no_float16_headroom(float32_packages: Pair) -> None:
    images = [{"image": np.zeros((1, 3, 224, 224), np.float32)}]
    headroom = measure_headroom(MLProgram(float32_packages[0]), images)
    assert headroom.worst is None and headroom.smallest_epsilon is None


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), bits=st.sampled_from([2, 4, 6]), heavy=st.booleans())
def test_palettes_use_the_nearest_centre_and_beat_an_even_grid(seed: int, bits: int, heavy: bool) -> None:
    generator = np.random.default_rng(seed)
    values = generator.standard_t(4, 3000) if heavy else generator.standard_normal(3000)
    weight = values.astype(np.float16).reshape(30, 100)
    lut, indices = palette_function(bits)(weight)
    assert lut.shape == (1 << bits,) and lut.dtype == weight.dtype and indices.dtype == np.uint8
    chosen = lut[indices].reshape(weight.shape).astype(np.float64)
    error = np.abs(chosen - weight)
    nearest = np.abs(lut.astype(np.float64)[:, None, None] - weight).min(0)
    assert (error <= nearest + 1e-2).all()  # the centres are rounded to float16 after the choice
    grid = np.linspace(weight.min(), weight.max(), 1 << bits)
    on_grid = np.abs(grid[:, None, None] - weight).min(0)
    assert np.square(error).mean() < np.square(on_grid).mean()


def test_k_means_keeps_few_values_as_they_are() -> None:
    centres = k_means(np.array([-1.0, 0.5, 2.0]), np.array([5, 1, 2]), 4)
    assert {-1.0, 0.5, 2.0} <= {round(float(centre), 6) for centre in centres}
