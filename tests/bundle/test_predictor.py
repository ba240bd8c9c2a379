"""The predictor over artifacts answers as the reference predictor, prompt by prompt."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mobilesam_export.bundle.predictor import BundlePredictor, decoder_points
from mobilesam_export.contract import PAD_COLOUR, PointLabel
from mobilesam_export.model_frame import model_frame
from reference.errors import PromptError
from reference.mobile_sam import MobileSam
from reference.predictor import Predictor
from reference.prompts import Prompts
from tests.randomised import randomised_sam
from tests.reference_runtime import ReferenceRuntime

POINTS = np.array([[[3, 4], [5, 6]], [[7, 8], [9, 1]]], np.float32)
LABELS = np.array([[1, 0], [1, 1]], np.float32)
BOXES = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
TOLERANCE = 1e-4  # float32 sums over another order of tokens; logits are around 2


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return randomised_sam(image_size=64)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (41, 57, 3), np.uint8)


def test_points_are_followed_by_one_padding_point() -> None:
    coords, labels = decoder_points(Prompts(POINTS, LABELS, None, None))
    assert np.array_equal(coords[:, :2], POINTS)
    assert np.array_equal(coords[:, 2:], np.zeros((2, 1, 2)))
    assert labels.tolist() == [[1, 0, PointLabel.PADDING], [1, 1, PointLabel.PADDING]]


def test_a_box_is_two_labelled_corners_and_no_padding_point() -> None:
    coords, labels = decoder_points(Prompts(None, None, BOXES, None))
    assert coords.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert labels.tolist() == [[2, 3], [2, 3]]


def test_a_box_with_points_has_no_padding_point_either() -> None:
    coords, labels = decoder_points(Prompts(POINTS, LABELS, BOXES, None))
    assert coords.shape == (2, 4, 2)
    assert labels.tolist() == [[1, 0, 2, 3], [1, 1, 2, 3]]


def test_a_mask_alone_is_an_absent_slot() -> None:
    coords, labels = decoder_points(Prompts(None, None, None, np.zeros((2, 1, 16, 16), np.float32)))
    assert coords.shape == (2, 1, 2)
    assert labels.tolist() == [[PointLabel.ABSENT], [PointLabel.ABSENT]]


def test_the_padding_has_the_pad_colour_and_normalises_to_zero(sam: MobileSam) -> None:
    image = model_frame(np.full((64, 48, 3), 7, np.uint8), 64)
    assert image.shape == (1, 3, 64, 64)
    assert (image[..., :48] == 7).all()
    assert np.array_equal(image[0, :, 0, 48], np.array(PAD_COLOUR, np.float32))
    assert np.abs(sam.normalise_and_pad(torch.from_numpy(image)).numpy()[..., 48:]).max() == 0


@pytest.mark.parametrize("multimask_output", [False, True])
def test_a_batch_of_prompts_equals_the_reference(sam: MobileSam, photo: np.ndarray, multimask_output: bool) -> None:
    ours, theirs = BundlePredictor(ReferenceRuntime(sam), "x"), Predictor(sam)
    masks = np.random.default_rng(1).normal(0, 5, (2, 1, 16, 16)).astype(np.float32)
    for predictor in (ours, theirs):
        predictor.set_image(photo)
    for prompt in (
        {"point_coords": POINTS, "point_labels": LABELS},
        {"boxes": BOXES},
        {"point_coords": POINTS, "point_labels": LABELS, "boxes": BOXES},
        {"point_coords": POINTS, "point_labels": LABELS, "mask_input": masks},
        {"mask_input": masks},
    ):
        got = ours.predict_batch(**prompt, multimask_output=multimask_output)
        expected = theirs.predict_batch(**prompt, multimask_output=multimask_output)
        assert got[0].shape == expected[0].shape == (2, 3 if multimask_output else 1, 41, 57)
        np.testing.assert_allclose(got[1], expected[1], rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(got[2], expected[2], rtol=TOLERANCE, atol=TOLERANCE)


def test_more_points_than_the_artifact_holds_are_refused(sam: MobileSam, photo: np.ndarray) -> None:
    runtime = ReferenceRuntime(sam)
    runtime.max_points = 3
    predictor = BundlePredictor(runtime, "x")
    predictor.set_image(photo)
    predictor.predict(np.ones((2, 2)), np.ones(2))  # with the padding point, three
    with pytest.raises(PromptError, match=r"prompt of 4 slots.*holds 3"):
        predictor.predict(np.ones((3, 2)), np.ones(3))


def test_an_embedding_file_goes_back_and_forth_between_reference_and_bundle(
    sam: MobileSam, photo: np.ndarray, tmp_path: Path
) -> None:
    theirs = Predictor(sam)
    theirs.set_image(photo)
    theirs.save_embedding(tmp_path / "photo.safetensors")
    ours = BundlePredictor(ReferenceRuntime(sam), theirs.weights_id())
    ours.load_embedding(tmp_path / "photo.safetensors")
    box = (5, 5, 40, 30)
    np.testing.assert_allclose(ours.predict(box=box)[2], theirs.predict(box=box)[2], rtol=TOLERANCE, atol=TOLERANCE)


def test_a_single_mask_decoder_gives_one_mask_whatever_is_asked(sam: MobileSam, photo: np.ndarray) -> None:
    class SingleMask(ReferenceRuntime):
        def decode(self, *arguments):  # type: ignore[no-untyped-def]
            masks, iou = super().decode(*arguments)
            return masks[:, 2:3], iou[:, 2:3]

    predictor = BundlePredictor(SingleMask(sam), "x", single_mask=True)
    predictor.set_image(photo)
    masks, iou_predictions, low_res_masks = predictor.predict(box=(5, 5, 40, 30), multimask_output=True)
    assert (len(masks), len(iou_predictions), len(low_res_masks)) == (1, 1, 1)
    every = predictor.predict_every_mask(box=(5, 5, 40, 30))
    for got, one in zip(every, (masks, iou_predictions, low_res_masks), strict=True):
        np.testing.assert_array_equal(got, one)
