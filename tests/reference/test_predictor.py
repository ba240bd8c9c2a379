"""Prompts: the semantics of SAM's predictor, batches, and what is refused with a reason."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import MobileSam, Predictor, PromptError
from reference.checkpoint import weights_sha256
from reference.predictor import LARGEST_NUMBER, check_prompts
from reference.transforms import boxes_to_model_frame, to_model_frame
from tests.randomised import randomised_sam

SIZE = (61, 97)
POINTS = [[40.0, 20.0], [10.0, 50.0]]
LABELS = [1, 0]
BOX = [10.0, 5.0, 80.0, 55.0]
KINDS: dict[str, dict[str, Any]] = {
    "points": {"point_coords": POINTS, "point_labels": LABELS},
    "box": {"box": BOX},
    "box and points": {"point_coords": POINTS, "point_labels": LABELS, "box": BOX},
    "mask only": {"mask_input": np.linspace(-9, 9, 56 * 56, dtype=np.float32).reshape(1, 56, 56)},
}
KINDS["refinement"] = {**KINDS["points"], **KINDS["mask only"]}
KINDS["everything at once"] = {**KINDS["box and points"], **KINDS["mask only"]}
# One prompt alone or in a batch: the same sums in another order.
LOGIT_TOLERANCE = 1e-3


def assert_close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=LOGIT_TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_has_the_documented_form(small_predictor: Predictor, kind: str) -> None:
    for multimask, count in ((True, 3), (False, 1)):
        masks, iou, low_res = small_predictor.predict(**KINDS[kind], multimask_output=multimask)
        assert (masks.shape, masks.dtype) == ((count, *SIZE), np.dtype(bool))
        assert (iou.shape, iou.dtype) == ((count,), np.dtype(np.float32))
        assert (low_res.shape, low_res.dtype) == ((count, 56, 56), np.dtype(np.float32))


def test_every_kind_of_prompt_gives_another_answer(small_predictor: Predictor) -> None:
    answers = [small_predictor.predict(**prompt)[2] for prompt in KINDS.values()]
    for i, a in enumerate(answers):
        for b in answers[i + 1 :]:
            assert abs(a - b).max() > 0.05


def test_single_and_multimask_rows_are_the_decoders(small_predictor: Predictor, small_sam: MobileSam) -> None:
    coords = torch.from_numpy(to_model_frame(np.array([POINTS]), SIZE, 224)).float()
    with torch.inference_mode():
        assert small_predictor.image_embeddings is not None
        embeddings = torch.from_numpy(small_predictor.image_embeddings)
        low_res, iou = small_sam.predict_masks(embeddings, (coords, torch.tensor([LABELS]).float()))
    assert low_res.shape == (1, 4, 56, 56)
    for multimask, rows in ((True, slice(1, 4)), (False, slice(0, 1))):
        answer = small_predictor.predict(POINTS, LABELS, multimask_output=multimask)
        np.testing.assert_array_equal(answer[1], iou[0, rows].numpy())
        np.testing.assert_array_equal(answer[2], low_res[0, rows].numpy())


def test_points_without_a_box_are_followed_by_one_padding_point(small_predictor: Predictor) -> None:
    sam, embeddings = small_predictor.sam, torch.from_numpy(np.asarray(small_predictor.image_embeddings))
    coords = torch.from_numpy(to_model_frame(np.array([[*POINTS, [0, 0]]]), SIZE, 224)).float()
    encoder = sam.prompt_encoder
    with torch.inference_mode():
        labels = torch.tensor([[*LABELS, -1]]).float()
        sparse = encoder.embed_points(coords, labels, pad=False)
        _, dense = encoder()
        low_res, _ = sam.mask_decoder(embeddings, encoder.image_pe(), sparse, dense)
        padded_twice, _ = encoder((coords, labels))
    assert_close(small_predictor.predict(POINTS, LABELS)[2], low_res[0, 1:].numpy())
    assert padded_twice.shape[1] == 4
    with_padding = small_predictor.predict([*POINTS, [0.0, 0.0]], [*LABELS, -1])[2]  # accepted, and one token more
    assert abs(with_padding - low_res[0, 1:].numpy()).max() > 0.01


def test_token_counts_follow_the_prompt(small_sam: MobileSam) -> None:
    encoder = small_sam.prompt_encoder
    points = (torch.rand(2, 3, 2) * 200, torch.ones(2, 3))
    boxes, masks = torch.rand(2, 4) * 200, torch.rand(2, 1, 56, 56)
    with torch.inference_mode():
        assert encoder(points)[0].shape == (2, 4, 256)  # and a padding point
        assert encoder(points, boxes)[0].shape == (2, 5, 256)
        assert encoder(None, boxes)[0].shape == (2, 2, 256)
        assert encoder(None, None, masks)[0].shape == (2, 0, 256)
        assert encoder(None, None, masks)[1].shape == (2, 256, 14, 14)


def test_no_mask_is_the_learned_embedding_and_not_a_mask_of_zeros(small_predictor: Predictor) -> None:
    without = small_predictor.predict(POINTS, LABELS)[2]
    zeros = small_predictor.predict(POINTS, LABELS, mask_input=np.zeros((1, 56, 56), np.float32))[2]
    assert abs(without - zeros).max() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_answers_as_its_prompts_alone(small_predictor: Predictor, kind: str) -> None:
    first: dict[str, Any] = {name: np.asarray(value) for name, value in KINDS[kind].items()}
    second: dict[str, Any] = {name: value if name == "point_labels" else value * 0.7 for name, value in first.items()}
    batch: dict[str, Any] = {
        "boxes" if name == "box" else name: np.stack([first[name], second[name]]) for name in first
    }
    masks, iou, low_res = small_predictor.predict_batch(**batch)
    for i, prompt in enumerate((first, second)):
        alone = small_predictor.predict(**prompt)
        assert_close(iou[i], alone[1])
        assert_close(low_res[i], alone[2])
        assert (masks[i] != alone[0]).mean() < 1e-3
    logits_only = small_predictor.predict_logits(**batch)
    np.testing.assert_array_equal(logits_only[0], iou)
    np.testing.assert_array_equal(logits_only[1], low_res)


def test_the_order_of_points_does_not_matter(small_predictor: Predictor) -> None:
    assert_close(small_predictor.predict(POINTS, LABELS)[2], small_predictor.predict(POINTS[::-1], LABELS[::-1])[2])


def test_x_and_y_labels_and_corners_are_not_interchangeable(small_predictor: Predictor) -> None:
    answer = small_predictor.predict(**KINDS["box and points"])[2]
    x0, y0, x1, y1 = BOX
    for changed in (
        {"point_coords": [point[::-1] for point in POINTS]},
        {"point_labels": LABELS[::-1]},
        {"box": [y0, x0, y1, x1]},
        {"box": [x1, y1, x0, y0]},
    ):
        assert abs(small_predictor.predict(**{**KINDS["box and points"], **changed})[2] - answer).max() > 0.01


def test_prompts_may_be_lists_tuples_or_arrays_of_any_number_type(small_predictor: Predictor) -> None:
    expected = small_predictor.predict([[40, 20]], [1], [10, 5, 80, 55])[2]
    for kind in (np.int64, np.float32, np.float16):
        answer = small_predictor.predict(
            np.array([[40, 20]], kind), np.array([True]), np.array([[10, 5, 80, 55]], kind)
        )
        np.testing.assert_array_equal(answer[2], expected)
    np.testing.assert_array_equal(small_predictor.predict(((40, 20),), (1,), (10, 5, 80, 55))[2], expected)


def test_a_second_photo_replaces_the_first(small_predictor: Predictor) -> None:
    first = small_predictor.predict(POINTS, LABELS)
    small_predictor.set_image(np.full((30, 20, 3), 200, np.uint8))
    second = small_predictor.predict([[10, 10]], [1])
    assert second[0].shape == (3, 30, 20)
    small_predictor.set_image(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8))
    np.testing.assert_array_equal(small_predictor.predict(POINTS, LABELS)[2], first[2])


def test_predicting_changes_no_weight_and_no_embedding(small_sam: MobileSam, small_predictor: Predictor) -> None:
    assert small_predictor.image_embeddings is not None
    before = {name: tensor.clone() for name, tensor in small_sam.state_dict().items()}
    embeddings = small_predictor.image_embeddings.copy()
    for prompt in KINDS.values():
        small_predictor.predict(**prompt)
    np.testing.assert_array_equal(small_predictor.image_embeddings, embeddings)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small_sam.state_dict().items())


def test_a_model_in_training_mode_is_refused() -> None:
    sam = randomised_sam(image_size=64)
    before = weights_sha256(sam)
    sam.train()
    with pytest.raises(ValueError, match=r"training mode, .*; call sam\.eval\(\) first"):
        Predictor(sam).set_image(np.zeros((9, 9, 3), np.uint8))
    assert weights_sha256(sam) == before
    sam.eval()
    Predictor(sam).set_image(np.zeros((9, 9, 3), np.uint8))


NAN, INF = float("nan"), float("inf")
MASK = np.zeros((1, 56, 56), np.float32)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({}, "got no prompt; give point_coords with point_labels, a box, or mask_input"),
        ({"point_coords": [[1, 2]]}, "point_coords and point_labels go together"),
        ({"point_labels": [1], "box": BOX}, "point_coords and point_labels go together"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 0]}, r"point_labels of shape \(1, 2\), expected \(1, 1\)"),
        ({"point_coords": [1, 2], "point_labels": [1]}, r"point_coords of shape \(1, 2\), expected \(B, N, 2\)"),
        ({"point_coords": [[1, 2, 3]], "point_labels": [1]}, r"point_coords of shape \(1, 1, 3\)"),
        ({"point_coords": [], "point_labels": []}, r"point_coords of shape \(1, 0\)"),
        ({"point_coords": np.zeros((0, 2)), "point_labels": []}, "an empty list of points; leave point_coords out"),
        ({"point_coords": [[NAN, 2]], "point_labels": [1]}, "point_coords holds NaN or infinite"),
        ({"point_coords": [[1, INF]], "point_labels": [1]}, "point_coords holds NaN or infinite"),
        ({"point_coords": [[1, 2]], "point_labels": [NAN]}, "point_labels holds NaN or infinite"),
        ({"point_coords": [[1, 2]], "point_labels": [2]}, r"point labels \[2.0\], expected 1 foreground or 0"),
        ({"point_coords": [[1, 2]], "point_labels": [0.5]}, r"point labels \[0.5\]"),
        ({"point_coords": [[1, 2], [3]], "point_labels": [1, 1]}, "point_coords is not an array of numbers"),
        ({"point_coords": [["left", "top"]], "point_labels": [1]}, "point_coords is not an array of numbers"),
        ({"box": [1, 2, 3]}, r"boxes of shape \(1, 3\), expected \(B, 4\)"),
        ({"box": [BOX, BOX]}, r"boxes of shape \(1, 8\)"),
        ({"box": [1, 2, 3, NAN]}, "boxes holds NaN or infinite"),
        ({"box": "all"}, "box is not an array of numbers"),
        ({"mask_input": MASK[0]}, r"mask_input of shape \(1, 56, 56\), expected \(B, 1, 56, 56\)"),
        ({"mask_input": np.zeros((1, 64, 64))}, r"mask_input of shape \(1, 1, 64, 64\), expected \(B, 1, 56, 56\)"),
        ({"mask_input": np.zeros((3, 56, 56))}, r"mask_input of shape \(1, 3, 56, 56\)"),
        ({"mask_input": MASK * NAN}, "mask_input holds NaN or infinite"),
        ({"mask_input": MASK - 1e12}, r"mask_input holds -1e\+12, expected numbers up to 1e\+09"),
        ({"point_coords": [[1, 1e300]], "point_labels": [1]}, r"point_coords holds 1e\+300, expected numbers up to"),
    ],
)
def test_a_prompt_without_meaning_is_refused(small_predictor: Predictor, prompt: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message) as caught:
        small_predictor.predict(**prompt)
    assert "\n" not in str(caught.value)
    assert small_predictor.predict(POINTS, LABELS)[0].shape == (3, *SIZE)  # and the predictor goes on working


@pytest.mark.parametrize(
    "prompts",
    [
        {"boxes": np.zeros((0, 4))},
        {"boxes": np.zeros((2, 4)), "point_coords": np.zeros((3, 1, 2)), "point_labels": np.ones((3, 1))},
        {"boxes": np.zeros((2, 4)), "mask_input": np.zeros((1, 1, 56, 56))},
    ],
    ids=["none", "points and boxes", "boxes and masks"],
)
def test_batches_that_do_not_match_are_refused(small_predictor: Predictor, prompts: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match=r"got batches of .* prompts, expected one or more"):
        small_predictor.predict_batch(**prompts)


def test_predicting_before_a_photo_is_set_is_refused(small_sam: MobileSam) -> None:
    with pytest.raises(PromptError, match=r"no image is set; call set_image\(image\)"):
        Predictor(small_sam).predict(POINTS, LABELS)


COORDS = st.floats(-1e5, 1e5)  # outside the photo is allowed, as in SAM


@given(
    st.lists(st.tuples(COORDS, COORDS, st.sampled_from([0, 1])), min_size=1, max_size=9),
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
)
def test_checked_prompts_are_the_transformed_ones(
    points: list[tuple[float, float, int]], size: tuple[int, int]
) -> None:
    coords, labels = np.array([[p[:2] for p in points]]), np.array([[p[2] for p in points]])
    boxes = coords[:, [0, -1]].reshape(1, 4)
    prompts = check_prompts(coords, labels, boxes, None, size, 1024)
    assert prompts.points is not None and prompts.boxes is not None and prompts.masks is None
    np.testing.assert_array_equal(prompts.points, to_model_frame(coords, size, 1024).astype(np.float32))
    np.testing.assert_array_equal(prompts.boxes, boxes_to_model_frame(boxes, size, 1024).astype(np.float32))
    np.testing.assert_array_equal(prompts.labels, labels)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=2, max_size=2))
def test_only_finite_points_pass_and_float32_holds_them(point: list[float]) -> None:
    if np.isfinite(point).all() and abs(np.array(point)).max() <= LARGEST_NUMBER:
        assert check_prompts([[point]], [[1]], None, None, (10, 10), 64).points is not None
    else:
        with pytest.raises(PromptError, match=r"NaN or infinite|expected numbers up to 1e"):
            check_prompts([[point]], [[1]], None, None, (10, 10), 64)


@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_any_small_photo_and_click_give_finite_logits(size: tuple[int, int], seed: int) -> None:
    random = np.random.default_rng(seed)
    predictor = Predictor(TINY_SAM)
    predictor.set_image(random.integers(0, 256, (*size, 3), np.uint8))
    masks, iou, low_res = predictor.predict(random.random((1, 2)) * size[::-1], [1])
    assert masks.shape == (3, *size)
    assert np.isfinite(low_res).all() and np.isfinite(iou).all()


TINY_SAM = randomised_sam(image_size=64)
