"""The runtime over the packages: the reference's numbers, any prompt, on any platform."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilesam_export.contract import PAD_COLOUR, PointLabel
from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreml.runtime import EXECUTOR, CoreMLRuntime
from reference.mobile_sam import MobileSam

Pair = tuple[Path, Path]

executor_only = pytest.mark.skipif(sys.platform == "darwin", reason="Apple's runtime is used there")


def _image(sam: MobileSam) -> tuple[np.ndarray, torch.Tensor]:
    """A photo of 224 x 160 in the model frame as a host prepares it, and its reference embedding."""
    photo = np.random.default_rng(0).integers(0, 256, (1, 3, 160, 224)).astype(np.float32)
    image = np.empty((1, 3, 224, 224), np.float32)
    image[:] = np.array(PAD_COLOUR, np.float32).reshape(3, 1, 1)
    image[:, :, :160] = photo
    with torch.inference_mode():
        return image, sam.image_encoder(sam.normalise_and_pad(torch.from_numpy(photo)))


def _click(labels: list[float]) -> tuple[np.ndarray, np.ndarray]:
    coords = np.array([[[50.0, 60.0], [120.0, 90.0], [0.0, 0.0]]], np.float32)[:, : len(labels)]
    return coords, np.array([labels], np.float32)


def test_float32_packages_equal_the_reference(sam: MobileSam, float32_packages: Pair) -> None:
    runtime = CoreMLRuntime(*float32_packages)
    image, expected = _image(sam)
    embeddings = runtime.encode(image)
    # float32 sums in another order, as in test_graphs
    assert np.abs(embeddings - expected.numpy()).max() < 1e-5 * float(expected.std())
    coords, labels = _click([1.0, 0.0, float(PointLabel.PADDING)])
    masks, iou = runtime.decode(embeddings, coords, labels, None)
    with torch.inference_mode():
        points = (torch.from_numpy(coords[:, :2]), torch.from_numpy(labels[:, :2]))
        expected_masks, expected_iou = sam.predict_masks(expected, points)
    assert masks.shape == (1, 4, 56, 56)
    assert np.abs(masks - expected_masks.numpy()).max() < 2e-5 * float(expected_masks.abs().max())
    np.testing.assert_allclose(iou, expected_iou.numpy(), atol=1e-4)


def test_float16_embeddings_reach_60_db_on_a_padded_photo(sam: MobileSam, packages: Pair) -> None:
    image, expected = _image(sam)
    got, want = CoreMLRuntime(*packages).encode(image), expected.numpy()
    psnr_db = 10 * np.log10((want.max() - want.min()) ** 2 / np.square(got - want).mean())
    cosine = float((got * want).sum() / np.linalg.norm(got) / np.linalg.norm(want))
    assert psnr_db >= 60  # the gate; 72 dB measured
    assert cosine >= 0.99999  # 0.999998 measured


def test_a_batch_of_prompts_is_the_prompts_one_by_one(packages: Pair) -> None:
    runtime = CoreMLRuntime(*packages)
    generator = np.random.default_rng(0)
    embeddings = generator.standard_normal((1, 256, 14, 14), dtype=np.float32)
    coords = generator.uniform(0, 224, (3, 2, 2)).astype(np.float32)
    labels = np.array([[1, -1], [2, 3], [0, 1]], np.float32)
    mask = generator.standard_normal((3, 1, 56, 56), dtype=np.float32)
    masks, iou = runtime.decode(embeddings, coords, labels, mask)
    assert masks.shape == (3, 4, 56, 56) and iou.shape == (3, 4)
    for i in range(3):
        alone = runtime.decode(embeddings, coords[i : i + 1], labels[i : i + 1], mask[i : i + 1])
        np.testing.assert_array_equal(masks[i], alone[0][0])
        np.testing.assert_array_equal(iou[i], alone[1][0])
    assert not np.array_equal(masks[0], masks[1])


@pytest.mark.parametrize("count", [0, 1, 5, 8])
def test_fixed_and_flexible_decoders_agree_on_any_number_of_points(
    packages: Pair, float32_packages: Pair, count: int
) -> None:
    generator = np.random.default_rng(count)
    embeddings = generator.standard_normal((1, 256, 14, 14), dtype=np.float32)
    coords = generator.uniform(0, 224, (1, count, 2)).astype(np.float32)
    labels = generator.integers(0, 2, (1, count)).astype(np.float32)
    mask = generator.standard_normal((1, 1, 56, 56), dtype=np.float32)
    half, _ = CoreMLRuntime(*packages).decode(embeddings, coords, labels, mask)
    full, _ = CoreMLRuntime(*float32_packages).decode(embeddings, coords, labels, mask)
    # float16 against float32: 4e-3 of the std was measured; unmasked slots would move the logits by a tenth of it
    assert np.sqrt(np.square(half - full).mean()) < 0.02 * full.std()


def test_too_many_points_are_refused(packages: Pair) -> None:
    coords, labels = np.zeros((1, 9, 2), np.float32), np.ones((1, 9), np.float32)
    runtime = CoreMLRuntime(*packages)
    assert runtime.max_points == 8 and runtime.image_size == 224
    with pytest.raises(ExportError, match=r"got 9 point slots .* this decoder holds 8"):
        runtime.decode(np.zeros((1, 256, 14, 14), np.float32), coords, labels, None)


@executor_only
def test_elsewhere_than_on_a_mac_it_says_that_apple_did_not_run_it(packages: Pair) -> None:
    assert CoreMLRuntime(*packages).engine == EXECUTOR
    with pytest.raises(ExportError, match="expected macOS"):
        CoreMLRuntime(*packages, native=True)
    with pytest.raises(ExportError, match="our executor runs on the CPU alone"):
        CoreMLRuntime(*packages, compute_units="cpu_ne")
    with pytest.raises(ExportError, match="got compute units 'tpu'"):
        CoreMLRuntime(*packages, compute_units="tpu")
