"""The reference equals the official implementation."""

from typing import Any

import numpy as np
import pytest
import torch

from reference import EverythingOptions, FoundMask, Predictor, segment_everything
from reference.transforms import logits_to_masks, to_model_frame
from tests.reference import golden

Predictors = dict[str, Predictor]

EMBEDDING_TOLERANCE = 1e-4  # float32 sums in another order differ by 3e-6; a wrong rule by far more
LOGIT_TOLERANCE = 5e-3  # the record is float16, which rounds logits above 8 by up to 0.0039
IOU_RELATIVE_TOLERANCE = 1e-4
LEAST_MASK_IOU = 0.9995  # a few of 200,000 pixels lie on the threshold

ONE_ROUND = [case for case in golden.CASES if "mask_input" not in case]
REFINEMENTS = [case for case in golden.CASES if "mask_input" in case]


def prompt(case: dict[str, Any]) -> dict[str, Any]:
    return {name: case[name] for name in ("point_coords", "point_labels", "box")}


EVERYTHING = EverythingOptions(
    points_per_side=6,
    pred_iou_thresh=0,
    stability_score_thresh=0.85,
    stability_score_offset=0.1,
    box_nms_thresh=0.95,
)


def assert_everything(photo: str, found: list[FoundMask]) -> None:
    """Everything mode with these options found what the official generator found."""
    record = {
        name: golden.OUTPUTS[f"{photo}/everything/{name}"]
        for name in ("area", "bbox_xywh", "stability", "predicted_iou")
    }
    assert len(found) == len(record["area"])
    boxes_xywh = [(box[0], box[1], box[2] - box[0], box[3] - box[1]) for box in (mask.box for mask in found)]
    np.testing.assert_array_equal(boxes_xywh, record["bbox_xywh"])
    # A mask has a hundred thousand pixels, a few of them on a threshold.
    np.testing.assert_allclose([mask.area for mask in found], record["area"], rtol=1e-4)
    np.testing.assert_allclose([mask.stability_score for mask in found], record["stability"], rtol=1e-4)
    np.testing.assert_allclose(
        [mask.iou_prediction for mask in found], record["predicted_iou"], rtol=IOU_RELATIVE_TOLERANCE
    )
    assert [int(mask.mask.sum()) for mask in found] == [mask.area for mask in found]


def assert_rows(key: str, masks: Any, iou: Any, low_res: Any) -> None:
    expected = golden.rows(key)
    assert len(masks) == len(iou) == len(low_res) == len(expected.masks)
    np.testing.assert_allclose(low_res[..., ::2, ::2], expected.every_2nd_logit, rtol=0, atol=LOGIT_TOLERANCE)
    np.testing.assert_allclose(iou, expected.iou_predictions, rtol=IOU_RELATIVE_TOLERANCE)
    ious = [golden.mask_iou(a, b) for a, b in zip(masks, expected.masks, strict=True)]
    assert min(ious) >= LEAST_MASK_IOU, ious


@pytest.mark.parametrize("photo", ["astronaut", "coffee"])
def test_embedding_equals_the_official_one(golden_predictors: Predictors, photo: str) -> None:
    embeddings = golden_predictors[photo].image_embeddings
    assert embeddings is not None
    assert embeddings.shape == (1, 256, 64, 64)
    record = {
        name: golden.OUTPUTS[f"{photo}/embedding_{name}"] for name in ("every_4th", "channel_mean", "channel_std")
    }
    np.testing.assert_allclose(embeddings[0, :, ::4, ::4], record["every_4th"], rtol=0, atol=EMBEDDING_TOLERANCE)
    np.testing.assert_allclose(embeddings[0].mean((1, 2)), record["channel_mean"], rtol=0, atol=EMBEDDING_TOLERANCE)
    std = embeddings[0].std((1, 2), ddof=1)  # as torch counts it
    np.testing.assert_allclose(std, record["channel_std"], rtol=0, atol=EMBEDDING_TOLERANCE)


@pytest.mark.parametrize("case", ONE_ROUND, ids=lambda case: case["key"])
def test_prediction_equals_the_official_one(golden_predictors: Predictors, case: dict[str, Any]) -> None:
    predictor = golden_predictors[case["image"]]
    single = predictor.predict(**prompt(case), multimask_output=False)
    multi = predictor.predict(**prompt(case), multimask_output=True)
    assert_rows(case["key"], *(np.concatenate(both) for both in zip(single, multi, strict=True)))


@pytest.mark.parametrize("case", REFINEMENTS, ids=lambda case: case["key"])
def test_refinement_equals_the_official_one(golden_predictors: Predictors, case: dict[str, Any]) -> None:
    predictor = golden_predictors[case["image"]]
    first_round = next(other for other in golden.CASES if other["key"] == f"{case['image']}/three_points")
    _, iou, low_res = predictor.predict(**prompt(first_round))
    mask_input = low_res[[iou.argmax()]]
    # The official code refined this mask in float32 too; only its record is float16.
    np.testing.assert_allclose(mask_input, golden.OUTPUTS[case["mask_input"]], rtol=0, atol=LOGIT_TOLERANCE)
    assert_rows(case["key"], *predictor.predict(**prompt(case), mask_input=mask_input, multimask_output=False))


@pytest.mark.parametrize("photo", ["astronaut", "coffee"])
def test_all_four_rows_equal_the_official_onnx_wrapper(golden_predictors: Predictors, photo: str) -> None:
    predictor = golden_predictors[photo]
    size = predictor.original_size
    assert size is not None and predictor.image_embeddings is not None
    centre = torch.from_numpy(to_model_frame(np.array([[[size[1] / 2, size[0] / 2]]]), size, 1024)).float()
    with torch.inference_mode():
        outputs = predictor.sam.predict_masks(torch.from_numpy(predictor.image_embeddings), (centre, torch.ones(1, 1)))
    low_res, iou = (output.numpy() for output in outputs)
    masks = logits_to_masks(low_res, size, 1024)
    assert_rows(f"{photo}/onnx_contract_all", masks[0], iou[0], low_res[0])

    best = 1 + int(iou[0, 1:].argmax())  # return_single_mask, asked with one point: the best of the three
    chosen = slice(best, best + 1)
    assert_rows(f"{photo}/onnx_contract_single", masks[0, chosen], iou[0, chosen], low_res[0, chosen])


@pytest.mark.parametrize("photo", ["astronaut", "coffee"])
def test_everything_mode_equals_the_official_mask_generator(golden_predictors: Predictors, photo: str) -> None:
    assert_everything(photo, segment_everything(golden_predictors[photo], options=EVERYTHING))
