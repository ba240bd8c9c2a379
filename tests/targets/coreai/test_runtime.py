"""Apple's own package runs the asset: it agrees with the reference, and what is no rounding fails the gates."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.errors import ExportError
from mobilesam_export.parity.cases import QUICK_PHOTO
from mobilesam_export.parity.compare import Answers, ask
from mobilesam_export.parity.gates import FLOAT32
from mobilesam_export.parity.report import ParityReport, judge
from reference import Predictor
from reference.mobile_sam import MobileSam
from tests.targets.coreai.conftest import IMAGE_SIZE, NEEDED
from tests.targets.prompts import every_kind

pytest.importorskip("coreai_torch", reason=NEEDED)

from mobilesam_export.targets.coreai.runtime import CoreAIRuntime, Floats


@pytest.fixture(scope="module")
def runtime(asset: Path) -> Iterator[CoreAIRuntime]:
    opened = CoreAIRuntime(asset, asset)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def expected(sam: MobileSam) -> Answers:
    return ask(Predictor(sam), [QUICK_PHOTO])


def judged(runtime: CoreAIRuntime, expected: Answers) -> ParityReport:
    return judge("coreai", FLOAT32, expected, ask(BundlePredictor(runtime, "any"), [QUICK_PHOTO], expected))


class Changed(CoreAIRuntime):
    """A runtime over the functions of another one, whose prompts come in wrong."""

    def __init__(self, real: CoreAIRuntime) -> None:
        self.__dict__.update(real.__dict__)


class SwappedAxes(Changed):
    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        return super().decode(image_embeddings, point_coords[..., ::-1], point_labels, mask_input)


class NoPaddingPoint(Changed):
    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        skipped = np.where(point_labels == -1, np.float32(-2), point_labels)
        return super().decode(image_embeddings, point_coords, skipped, mask_input)


def test_every_prompt_agrees_with_the_reference(runtime: CoreAIRuntime, expected: Answers) -> None:
    report = judged(runtime, expected)
    assert report.passed, report.describe()


@pytest.mark.parametrize("changed", [SwappedAxes, NoPaddingPoint])
def test_swapped_axes_and_a_forgotten_padding_point_fail(
    changed: type[Changed], runtime: CoreAIRuntime, expected: Answers
) -> None:
    report = judged(changed(runtime), expected)
    assert not report.passed
    assert report.worst is not None and report.worst.mask_iou < 0.95


@pytest.mark.parametrize("kind", ["point", "box and points", "mask", "refinement"])
def test_the_function_decode_equals_the_reference(
    kind: str, runtime: CoreAIRuntime, sam: MobileSam, embeddings: Tensor
) -> None:
    prompt = every_kind(IMAGE_SIZE)[kind]
    with torch.no_grad():
        wanted = sam.predict_masks(embeddings, prompt.points, prompt.box, prompt.mask)
    coords, labels = (tensor.numpy() for tensor in prompt.slots())
    got = runtime.decode(embeddings.numpy(), coords, labels, None if prompt.mask is None else prompt.mask.numpy())
    for answer, reference in zip(got, wanted, strict=True):
        assert np.abs(answer - reference.numpy()).max() < 2e-4 * float(reference.std())  # sums in another order


def test_a_batch_of_prompts_is_decoded_one_by_one(runtime: CoreAIRuntime, embeddings: Tensor) -> None:
    coords, labels = np.array([[[10, 20]], [[70, 60]]], np.float32), np.ones((2, 1), np.float32)
    both = runtime.decode(embeddings.numpy(), coords, labels, None)
    for i in range(2):
        one = runtime.decode(embeddings.numpy(), coords[i : i + 1], labels[i : i + 1], None)
        np.testing.assert_array_equal(both[0][i : i + 1], one[0])
        np.testing.assert_array_equal(both[1][i : i + 1], one[1])


def test_more_points_than_slots_are_refused(runtime: CoreAIRuntime, embeddings: Tensor) -> None:
    with pytest.raises(ExportError, match=r"got 9 point slots .* this decoder holds 8"):
        runtime.decode(embeddings.numpy(), np.zeros((1, 9, 2), np.float32), np.ones((1, 9), np.float32), None)


def test_it_runs_inside_a_notebooks_event_loop_and_closes_twice(asset: Path, embeddings: Tensor) -> None:
    async def in_a_notebook() -> tuple[Floats, Floats]:
        opened = CoreAIRuntime(asset, asset)
        found = opened.decode(embeddings.numpy(), np.zeros((1, 1, 2), np.float32), np.ones((1, 1), np.float32), None)
        opened.close()
        opened.close()
        return found

    masks, predictions = asyncio.run(in_a_notebook())
    assert masks.shape == (1, 4, IMAGE_SIZE // 4, IMAGE_SIZE // 4)
    assert predictions.shape == (1, 4)
