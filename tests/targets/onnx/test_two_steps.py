"""A decoder in two steps gives the bits that it gives in one; what cannot be cut answers as before."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.targets.onnx import decoder
from mobilesam_export.targets.onnx.runtime import OnnxRuntime
from mobilesam_export.targets.onnx.two_steps import UPSCALING, in_order, in_two_steps
from mobilesam_export.targets.onnx.write import write
from mobilesam_export.targets.target import TwoStepRuntime
from reference import EverythingOptions, Predictor, segment_everything
from reference.mobile_sam import MobileSam
from tests.randomised import randomised_sam

SIZE = 128
KEEP_ALL = EverythingOptions(points_per_side=3, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1)


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=SIZE)


@pytest.fixture(scope="module")
def files(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write(sam, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def embedding() -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(0, 1, (1, 256, SIZE // 16, SIZE // 16)).astype(np.float32)


def clicks(count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    coords = np.random.default_rng(4).uniform(0, SIZE, (count, 2, 2)).astype(np.float32)
    coords[:, 1] = 0
    return coords, np.tile(np.array([1, -1], np.float32), (count, 1))


def check(runtime: OnnxRuntime, embedding: NDArray[np.float32]) -> None:
    coords, labels = clicks(3)
    logits, iou = runtime.decode(embedding, coords, labels)
    lazily, draw = runtime.attend(embedding, coords, labels)
    # The same operations; a runtime may sum a product of another shape in another order.
    np.testing.assert_allclose(lazily, iou, rtol=0, atol=1e-5)
    for prompt, rows in ((0, [0, 1, 2, 3]), (2, [3, 1]), (1, [2])):
        drawn = draw(prompt, np.array(rows))
        np.testing.assert_allclose(drawn, logits[prompt, rows], rtol=0, atol=1e-5 * np.abs(logits).max())


def test_the_default_file(files: list[Path], embedding: NDArray[np.float32]) -> None:
    runtime = OnnxRuntime(*files, threads=1)
    assert in_two_steps(onnx.load(files[1])) is not None
    assert isinstance(runtime, TwoStepRuntime)
    check(runtime, embedding)
    assert runtime.concurrency == 1
    assert OnnxRuntime(*files, threads=3).concurrency == 3


def test_an_encoder_that_gives_its_memory_back_answers_the_same(files: list[Path]) -> None:
    runtime = OnnxRuntime(*files, threads=1)
    session, asked = runtime.encoder, []

    class Spy:
        def run(self, names: list[str], feeds: dict[str, Any], options: onnxruntime.RunOptions) -> Any:
            try:
                asked.append(options.get_run_config_entry("memory.enable_memory_arena_shrinkage"))
            except RuntimeError:  # no such entry
                asked.append(None)
            return session.run(names, feeds, options)

    runtime.encoder = Spy()  # type: ignore[assignment]
    image = np.random.default_rng(5).uniform(0, 255, (1, 3, SIZE, SIZE)).astype(np.float32)
    kept = runtime.encode(image)
    runtime.gives_memory_back = True
    np.testing.assert_array_equal(runtime.encode(image), kept)
    assert asked == [None, "cpu:0"]  # at 1024 the process then holds 210 MB less


def test_a_file_that_draws_by_parts(
    sam: MobileSam, tmp_path: Path, embedding: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "CELLS_AT_ONCE", 24)
    files = write(sam, tmp_path)
    model = onnx.load(files[1])
    assert sum(UPSCALING in node.input for node in model.graph.node) == 3  # of 64 cells
    parts = in_two_steps(model)
    assert parts is not None and sum(UPSCALING in node.input for node in parts.draw.graph.node) == 1
    check(OnnxRuntime(*files, threads=1), embedding)


def test_the_older_form(sam: MobileSam, tmp_path: Path, embedding: NDArray[np.float32]) -> None:
    files = write(sam, tmp_path, opset=17)
    assert in_two_steps(onnx.load(files[1])) is not None
    check(OnnxRuntime(*files, threads=1), embedding)


def test_a_fixed_number_of_slots(sam: MobileSam, tmp_path: Path, embedding: NDArray[np.float32]) -> None:
    runtime = OnnxRuntime(*write(sam, tmp_path, max_points=4), threads=1)
    assert runtime.best_batch == 1
    coords, labels = clicks(1)
    logits, iou = runtime.decode(embedding, coords, labels)
    lazily, draw = runtime.attend(embedding, coords, labels)
    np.testing.assert_allclose(lazily, iou, rtol=0, atol=1e-5)
    np.testing.assert_allclose(draw(0, np.arange(4)), logits[0], rtol=0, atol=1e-5 * np.abs(logits).max())


@pytest.mark.parametrize("options", [{"single_mask": True}, {"official_decoder": True}])
def test_what_is_not_cut_is_drawn_at_once(
    sam: MobileSam, tmp_path: Path, embedding: NDArray[np.float32], options: dict[str, bool]
) -> None:
    files = write(sam, tmp_path, **options)  # type: ignore[arg-type]
    assert in_two_steps(onnx.load(files[1])) is None
    runtime = OnnxRuntime(*files, threads=2)
    assert runtime.concurrency == 1
    coords, labels = clicks(2)
    logits, iou = runtime.decode(embedding, coords, labels)
    lazily, draw = runtime.attend(embedding, coords, labels)
    np.testing.assert_allclose(lazily, iou, rtol=0, atol=1e-6)
    np.testing.assert_allclose(draw(1, np.array([0])), logits[1, :1], rtol=0, atol=1e-4)


def test_pixels_are_put_in_order() -> None:
    order = np.arange(16 * 4).reshape(1, 64).astype(np.float32)  # a grid of 2 x 2 cells
    pixels = in_order(order, 2)
    assert pixels.shape == (1, 8, 8)
    assert pixels[0, 0, :4].tolist() == [0, 1, 4, 5]  # ex, then dx
    assert pixels[0, :4, 0].tolist() == [0, 2, 8, 10]  # ey, then dy
    assert pixels[0, 0, 4] == 16 and pixels[0, 4, 0] == 32  # the next cell, the next row of cells


@pytest.mark.parametrize("threads", [1, 2])
def test_everything_mode_finds_what_the_reference_finds(sam: MobileSam, files: list[Path], threads: int) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (61, 97, 3), np.uint8)
    expected = segment_everything(Predictor(sam), photo, KEEP_ALL)
    found = segment_everything(BundlePredictor(OnnxRuntime(*files, threads=threads), "w"), photo, KEEP_ALL)
    assert len(found) == len(expected) == 27
    for mask in found:
        near = [other for other in expected if other.point == mask.point]
        other = min(near, key=lambda other: abs(other.iou_prediction - mask.iou_prediction))
        assert mask.iou_prediction == pytest.approx(other.iou_prediction, abs=1e-4)
        assert (mask.mask != other.mask).mean() < 2e-3  # noise: many pixels next to the threshold
