"""Prompts: the semantics of SAM's predictor, batches, and what is refused with a reason."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import MobileSam, Predictor, PromptError
from reference.checkpoint import weights_sha256
from reference.prompts import MOST_POINTS, Prompts, check_prompts, prompts_at_a_time
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


@pytest.mark.parametrize("kind", KINDS)
def test_every_mask_is_the_single_one_and_the_three_decoded_once(
    small_predictor: Predictor, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    single, three = (small_predictor.predict(**KINDS[kind], multimask_output=multimask) for multimask in (False, True))
    decode, decoded = small_predictor._decode, []
    monkeypatch.setattr(small_predictor, "_decode", lambda prompts: decoded.append(len(prompts)) or decode(prompts))
    every = small_predictor.predict_every_mask(**KINDS[kind])
    assert decoded == [1]
    for got, first, others in zip(every, single, three, strict=True):
        np.testing.assert_array_equal(got, np.concatenate([first, others]))


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
        ({"point_coords": [[1, 2]], "point_labels": [1, 0]}, r"point_labels of shape \(2,\), expected \(1,\)"),
        ({"point_coords": [300, 150], "point_labels": [1]}, r"got point_coords of shape \(2,\), expected \(N, 2\): N"),
        ({"point_coords": [[1, 2, 3]], "point_labels": [1]}, r"point_coords of shape \(1, 3\), expected \(N, 2\)"),
        ({"point_coords": [], "point_labels": []}, r"point_coords of shape \(0,\)"),
        ({"point_coords": np.zeros((0, 2)), "point_labels": []}, "an empty list of points; leave point_coords out"),
        ({"point_coords": [[NAN, 2]], "point_labels": [1]}, "point_coords holds NaN or infinite"),
        ({"point_coords": [[1, INF]], "point_labels": [1]}, "point_coords holds NaN or infinite"),
        ({"point_coords": [[1, 2]], "point_labels": [NAN]}, "point_labels holds NaN or infinite"),
        ({"point_coords": [[1, 2]], "point_labels": [2]}, "point label 2, expected 1 foreground or 0"),
        ({"point_coords": [[1, 2]], "point_labels": [0.5]}, r"point label 0\.5"),
        ({"point_coords": [[1, 2]] * 4, "point_labels": [9, 8, 7, 6]}, r"point label 6, 7, 8, \.\.\., expected"),
        ({"point_coords": [[1, 2], [3]], "point_labels": [1, 1]}, "point_coords is not an array of numbers"),
        ({"point_coords": [["left", "top"]], "point_labels": [1]}, "point_coords of dtype <U4, expected real numbers"),
        ({"point_coords": [["1", "2"]], "point_labels": [1]}, "point_coords of dtype <U1"),
        (
            {"point_coords": np.array([[1, 2]], "M8[s]"), "point_labels": [1]},
            r"of dtype datetime64\[s\], expected real",
        ),
        ({"point_coords": [[1j, 2]], "point_labels": [1]}, "of dtype complex128"),
        ({"point_coords": [[None, 2]], "point_labels": [1]}, "point_coords is not an array of numbers|NaN"),
        ({"point_coords": torch.ones(1, 2, requires_grad=True), "point_labels": [1]}, "is not an array of numbers"),
        ({"point_coords": [[10**400, 2]], "point_labels": [1]}, "point_coords is not an array of numbers"),
        ({"point_coords": [POINTS[0]] * 20_000, "point_labels": [1] * 20_000}, "20,000 points in one prompt, expected"),
        (
            {"point_coords": [[1, 1e300]], "point_labels": [1]},
            r"holds \(1, 1e\+300\), expected pixels of the photo, 97",
        ),
        ({"point_coords": [[10, 1e9]], "point_labels": [1]}, r"holds \(10, 1e\+09\), expected pixels of the photo"),
        ({"point_coords": [[-98, 10]], "point_labels": [1]}, r"holds \(-98, 10\)"),
        ({"point_coords": [[10, 159]], "point_labels": [1]}, r"holds \(10, 159\), expected .* 97 wide and 61 high"),
        ({"box": [1, 2, 1e9, 2e9]}, r"boxes holds \(1e\+09, 2e\+09\)"),
        ({"box": [80, 55, 10, 5]}, "got box 80, 55, 10, 5, expected x0, y0, x1, y1 with x0 < x1 and y0 < y1"),
        ({"box": [10, 55, 80, 5]}, "got box 10, 55, 80, 5, expected"),
        ({"box": [80, 5, 10, 55]}, "got box 80, 5, 10, 55, expected"),
        ({"box": [10, 5, 10, 55]}, "got box 10, 5, 10, 55, expected"),
        ({"box": [10, 5, 80, 5]}, "got box 10, 5, 80, 5, expected"),
        ({"box": [1, 2, 3]}, r"box of shape \(3,\), expected \(4,\): x0, y0, x1, y1"),
        ({"box": [BOX, BOX]}, r"box of shape \(2, 4\)"),
        ({"box": [1, 2, 3, NAN]}, "box holds NaN or infinite"),
        ({"box": "all"}, "box of dtype <U3"),
        (
            {"mask_input": MASK[0]},
            r"mask_input of shape \(56, 56\), expected \(1, 56, 56\): one row of .*low_res_masks",
        ),
        ({"mask_input": np.zeros((1, 64, 64))}, r"mask_input of shape \(1, 64, 64\), expected \(1, 56, 56\)"),
        ({"mask_input": np.zeros((3, 56, 56))}, r"mask_input of shape \(3, 56, 56\), expected \(1, 56, 56\): one row"),
        ({"mask_input": MASK * NAN}, "mask_input holds NaN or infinite"),
        ({"mask_input": MASK - 1e12}, r"mask_input holds -1e\+12, expected logits within 1e\+09"),
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
        {"boxes": np.array([BOX, BOX]), "point_coords": np.zeros((3, 1, 2)), "point_labels": np.ones((3, 1))},
        {"boxes": np.array([BOX, BOX]), "mask_input": np.zeros((1, 1, 56, 56))},
    ],
    ids=["none", "points and boxes", "boxes and masks"],
)
def test_batches_that_do_not_match_are_refused(small_predictor: Predictor, prompts: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match=r"got batches of .* prompts, expected one or more"):
        small_predictor.predict_batch(**prompts)


def test_predicting_before_a_photo_is_set_is_refused(small_sam: MobileSam) -> None:
    with pytest.raises(PromptError, match=r"no image is set; call set_image\(image\)"):
        Predictor(small_sam).predict(POINTS, LABELS)


UNITS = st.floats(-1, 2)  # of the photo's sides; outside the photo is allowed, as in SAM


@given(
    st.lists(st.tuples(UNITS, UNITS, st.sampled_from([0, 1])), min_size=1, max_size=9),
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
)
def test_checked_prompts_are_the_transformed_ones(
    points: list[tuple[float, float, int]], size: tuple[int, int]
) -> None:
    coords, labels = np.array([[p[:2] for p in points]]) * size[::-1], np.array([[p[2] for p in points]])
    boxes = np.concatenate([coords[:, 0] - 1e-3, coords[:, 0] + 1e-3], axis=1).clip(-min(size), 2 * min(size))
    if not (boxes[:, :2] < boxes[:, 2:]).all():
        boxes = np.array([[0.0, 0, 1, 1]])
    prompts = check_prompts(coords, labels, boxes, None, size, 1024)
    assert prompts.points is not None and prompts.boxes is not None and prompts.masks is None
    np.testing.assert_array_equal(prompts.points, to_model_frame(coords, size, 1024).astype(np.float32))
    np.testing.assert_array_equal(prompts.boxes, boxes_to_model_frame(boxes, size, 1024).astype(np.float32))
    np.testing.assert_array_equal(prompts.labels, labels)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=2, max_size=2))
def test_only_finite_points_near_the_photo_pass(point: list[float]) -> None:
    if np.isfinite(point).all() and min(point) >= -10 and max(point) <= 20:
        assert check_prompts([[point]], [[1]], None, None, (10, 10), 64).points is not None
    else:
        with pytest.raises(PromptError, match=r"NaN or infinite|expected pixels of the photo"):
            check_prompts([[point]], [[1]], None, None, (10, 10), 64)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_decoded_in_chunks_answers_as_at_once(
    small_predictor: Predictor, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = {"boxes" if name == "box" else name: np.stack([np.asarray(v)] * 5) for name, v in KINDS[kind].items()}
    if "boxes" in batch:
        batch["boxes"] = batch["boxes"] + np.arange(5)[:, None]
    at_once = small_predictor.predict_batch(**batch)
    sizes: list[int] = []
    decode = small_predictor._decode

    def counted(prompts: Prompts) -> Any:
        sizes.append(len(prompts))
        return decode(prompts)

    monkeypatch.setattr(small_predictor, "_decode", counted)
    monkeypatch.setattr("reference.predictor.prompts_at_a_time", lambda *_: 2)
    in_chunks = small_predictor.predict_batch(**batch)
    assert sizes == [2, 2, 1]
    assert_close(in_chunks[1], at_once[1])
    assert_close(in_chunks[2], at_once[2])
    assert (in_chunks[0] != at_once[0]).mean() < 1e-3


def test_chunks_keep_to_the_memory_budget() -> None:
    def chunk(points: int, image_size: int) -> int:
        prompts = check_prompts(np.zeros((1, points, 2)), np.ones((1, points)), None, None, SIZE, image_size)
        return prompts_at_a_time(prompts, image_size)

    assert [chunk(1, 1024), chunk(1, 512), chunk(1, 224)] == [9, 36, 193]  # 27 MB each at 1024, a quarter at 512
    assert chunk(MOST_POINTS, 1024) == 1
    assert chunk(100, 1024) < chunk(9, 1024) < chunk(1, 1024)


def test_answers_that_take_too_much_memory_are_refused(
    small_predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reference.predictor.LARGEST_ANSWER_BYTES", 3 * SIZE[0] * SIZE[1])
    with pytest.raises(PromptError, match=r"the masks of 2 prompts take .* GB, expected at most .*; give fewer"):
        small_predictor.predict_batch(boxes=[BOX, BOX])
    with pytest.raises(PromptError, match="the logits of 2 prompts take"):
        small_predictor.predict_logits(boxes=[BOX, BOX])


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
