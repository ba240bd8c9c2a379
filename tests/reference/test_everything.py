"""Everything mode, part by part: grid, crops, filters, suppression. The golden tests cover the whole."""

import math
from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from reference import EverythingOptions, FoundMask, ImageError, Predictor, PromptError, segment_everything
from reference.crops import crop_boxes, point_grid, touches_crop_edge
from reference.everything import stability_score
from reference.everything_options import GivenPrompts
from reference.predictor import Answer, BasePredictor
from reference.prompts import Prompts
from reference.transforms import to_image_frame

KEEP_ALL = EverythingOptions(points_per_side=3, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1)


class Discs(BasePredictor):
    """Segments bright discs exactly: a stand-in for a model, to see what everything mode makes of its answers.

    Its embedding is the photo itself. The three masks of a point are the disc below it (IoU 0.9), the same
    half as strong (0.8), and nothing (0.1).
    """

    image_size = 64

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.photos: list[tuple[int, int]] = []

    def weights_id(self) -> str:
        return "discs"

    def _encode(self, resized: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.photos.append((resized.shape[0], resized.shape[1]))
        square = np.zeros((1, 3, 64, 64), np.float32)
        square[0, :, : resized.shape[0], : resized.shape[1]] = resized.transpose(2, 0, 1)
        return square

    def _decode(self, prompts: Prompts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        assert prompts.points is not None and self.image_embeddings is not None
        self.batches.append(len(prompts.points))
        low_res = np.full((len(prompts.points), 4, 16, 16), -80, np.float32)
        coarse = self.image_embeddings[0].reshape(3, 16, 4, 16, 4).mean((2, 4))
        for answers, ((x, y),) in zip(low_res, prompts.points, strict=True):
            colour = self.image_embeddings[0, :, min(int(y), 63), min(int(x), 63)]
            if colour.max() > 200:
                disc = coarse[colour.argmax()] > 100
                answers[1][disc] = 80
                answers[2] = answers[1] / 2
        return low_res, np.tile(np.array([0.5, 0.9, 0.8, 0.1], np.float32), (len(low_res), 1))


def discs_photo() -> NDArray[np.uint8]:
    """(96, 128) black with a red disc at the top left, a green one at the right and a blue one at the bottom."""
    y, x = np.indices((96, 128))
    photo = np.zeros((96, 128, 3), np.uint8)
    for channel, (cx, cy, radius) in enumerate([(30, 30, 22), (98, 40, 18), (60, 78, 12)]):
        photo[(x - cx) ** 2 + (y - cy) ** 2 < radius**2, channel] = 255
    return photo


def test_every_object_is_found_once() -> None:
    found = segment_everything(Discs(), discs_photo(), EverythingOptions(points_per_side=8, pred_iou_thresh=0.5))
    assert len(found) == 3
    assert [mask.area for mask in found] == sorted((mask.area for mask in found), reverse=True)
    for mask, channel, box in zip(found, range(3), [(8, 8, 52, 52), (80, 22, 116, 58), (48, 66, 72, 90)], strict=True):
        disc = discs_photo()[..., channel] > 0
        assert (mask.mask & disc).sum() / (mask.mask | disc).sum() > 0.75  # on a grid of 8 pixels
        np.testing.assert_allclose(mask.box, box, atol=7)
        x, y = mask.point
        assert disc[int(y), int(x)]
        assert mask.iou_prediction == pytest.approx(0.9)
        assert mask.crop == (0, 0, 128, 96)


def test_box_and_area_are_the_masks() -> None:
    for found in segment_everything(Discs(), discs_photo(), EverythingOptions(points_per_side=8)):
        mask = found.mask
        assert mask.shape == (96, 128)
        rows, columns = np.nonzero(mask)
        assert found.area == len(rows)
        assert found.box == (columns.min(), rows.min(), columns.max(), rows.max())


def test_candidates_are_all_masks_of_all_points(small_predictor: Predictor) -> None:
    found = segment_everything(small_predictor, options=KEEP_ALL)
    assert len(found) == 3 * 3 * 3
    assert len({mask.point for mask in found}) == 9
    for grid_point in point_grid(3) * (97, 61):
        masks, iou, _ = small_predictor.predict(grid_point[None], [1])
        mine = [mask for mask in found if mask.point == pytest.approx(tuple(grid_point))]
        assert len(mine) == 3
        for expected, quality in zip(masks, iou, strict=True):
            closest = min(mine, key=lambda mask: abs(mask.iou_prediction - quality))
            assert closest.iou_prediction == pytest.approx(quality, rel=1e-4, abs=1e-4)
            assert (closest.mask != expected).mean() < 2e-3


def test_filters_drop_what_is_below_them(small_predictor: Predictor) -> None:
    candidates = segment_everything(small_predictor, options=KEEP_ALL)

    def kept(**changes: Any) -> set[tuple[tuple[float, float], float]]:
        options = EverythingOptions(
            **{"points_per_side": 3, "pred_iou_thresh": 0, "stability_score_thresh": 0, "box_nms_thresh": 1, **changes}
        )
        return {(mask.point, mask.iou_prediction) for mask in segment_everything(small_predictor, options=options)}

    middle = float(np.median([mask.iou_prediction for mask in candidates]))
    expected = {(mask.point, mask.iou_prediction) for mask in candidates if mask.iou_prediction > middle}
    assert kept(pred_iou_thresh=middle) == expected
    assert 0 < len(expected) < 27
    stable = float(np.median([mask.stability_score for mask in candidates]))
    expected = {(mask.point, mask.iou_prediction) for mask in candidates if mask.stability_score >= stable}
    assert kept(stability_score_thresh=stable) == expected
    assert 0 < len(expected) < 27


def test_of_overlapping_boxes_the_best_prediction_stays(small_predictor: Predictor) -> None:
    best = max(mask.iou_prediction for mask in segment_everything(small_predictor, options=KEEP_ALL))
    options = EverythingOptions(points_per_side=3, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=0.3)
    found = segment_everything(small_predictor, options=options)
    assert 0 < len(found) < 27
    assert max(mask.iou_prediction for mask in found) == best
    for i, a in enumerate(found):
        for b in found[i + 1 :]:
            assert box_iou(a.box, b.box) <= 0.3


def box_iou(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    sides = [max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in range(2)]
    overlap = sides[0] * sides[1]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return overlap / (sum(areas) - overlap) if overlap else 0


@pytest.mark.parametrize("points_per_batch", [1, 4, 64])
def test_the_batch_size_changes_no_answer(points_per_batch: int) -> None:
    predictor = Discs()
    options = EverythingOptions(points_per_side=8, points_per_batch=points_per_batch)
    found = segment_everything(predictor, discs_photo(), options)
    expected = segment_everything(Discs(), discs_photo(), EverythingOptions(points_per_side=8))
    assert [(mask.box, mask.area) for mask in found] == [(mask.box, mask.area) for mask in expected]
    assert sum(predictor.batches) == 64
    assert max(predictor.batches) == points_per_batch


def test_crops_find_small_objects_and_put_them_in_their_place() -> None:
    photo = np.zeros((300, 400, 3), np.uint8)
    photo[210:222, 320:334] = (0, 255, 0)  # two pixels wide in the whole photo's 64-pixel frame
    options = EverythingOptions(points_per_side=12, crop_n_layers=2, stability_score_thresh=0.5)
    predictor = Discs()
    found = segment_everything(predictor, photo, options)
    assert len(predictor.photos) == 1 + 4 + 16
    assert found
    for mask in found:
        x0, y0, x1, y1 = mask.crop
        assert x1 - x0 < 400 and y1 - y0 < 300
        ours = photo[..., 1] > 0
        centre = np.argwhere(mask.mask).mean(0)
        np.testing.assert_allclose(centre, np.argwhere(ours).mean(0), atol=8)  # half a cell of the model's grid
        assert ours[int(mask.point[1]), int(mask.point[0])]


def test_of_the_same_mask_in_two_layers_the_finer_one_stays() -> None:
    photo = np.zeros((300, 400, 3), np.uint8)
    photo[40:80, 50:100] = (0, 0, 255)
    options = EverythingOptions(points_per_side=8, crop_n_layers=1, crop_nms_thresh=0.4)
    found = segment_everything(Discs(), photo, options)
    assert [mask.crop for mask in found] == [(0, 0, 251, 201)]
    apart = EverythingOptions(points_per_side=8, crop_n_layers=1, crop_nms_thresh=1)
    assert {mask.crop for mask in segment_everything(Discs(), photo, apart)} == {(0, 0, 400, 300), (0, 0, 251, 201)}


def test_masks_that_a_crop_cut_are_dropped() -> None:
    photo = np.zeros((300, 400, 3), np.uint8)
    photo[100:140, :] = (255, 0, 0)  # a beam through the whole photo: every crop cuts it
    found = segment_everything(Discs(), photo, EverythingOptions(points_per_side=8, crop_n_layers=1))
    assert [mask.crop for mask in found] == [(0, 0, 400, 300)]


def test_afterwards_the_whole_photo_is_set() -> None:
    predictor = Discs()
    segment_everything(predictor, discs_photo(), EverythingOptions(points_per_side=2, crop_n_layers=1))
    assert predictor.original_size == (96, 128)
    whole = Discs()
    whole.set_image(discs_photo())
    np.testing.assert_array_equal(predictor.image_embeddings, whole.image_embeddings)


def test_an_object_free_photo_gives_no_masks() -> None:
    assert segment_everything(Discs(), np.zeros((50, 40, 3), np.uint8)) == []


def test_missing_and_wrong_images_are_refused(small_predictor: Predictor) -> None:
    with pytest.raises(PromptError, match="no image is set; pass image"):
        segment_everything(Discs())
    with pytest.raises(PromptError, match="crops need the photo itself"):
        segment_everything(small_predictor, options=EverythingOptions(crop_n_layers=1))
    with pytest.raises(ImageError, match="dtype float64"):
        segment_everything(Discs(), np.zeros((5, 5, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"points_per_side": 0},
        {"points_per_batch": 0},
        {"crop_n_layers": -1},
        {"crop_n_layers": 6, "crop_n_points_downscale_factor": 2},
    ],
)
def test_options_without_a_point_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PromptError, match="expected at least one point a side in every layer"):
        EverythingOptions(**options)


def test_an_empty_mask_unpacks_to_nothing() -> None:
    nothing = FoundMask((0, 0, 0, 0), 0, 0.5, 0, (1, 1), (0, 0, 9, 5), (5, 9), np.zeros((1, 1), np.uint8))
    assert nothing.mask.shape == (5, 9)
    assert not nothing.mask.any()


def test_names_and_defaults_are_sams() -> None:
    assert asdict(EverythingOptions()) == {
        "points_per_side": 32,
        "points_per_batch": 64,
        "pred_iou_thresh": 0.88,
        "stability_score_thresh": 0.95,
        "stability_score_offset": 1.0,
        "box_nms_thresh": 0.7,
        "crop_n_layers": 0,
        "crop_nms_thresh": 0.7,
        "crop_overlap_ratio": 512 / 1500,
        "crop_n_points_downscale_factor": 1,
        "min_mask_region_area": 0,
        "hierarchical": False,  # ours
        "sure_logit": 8.5,
    }


def test_small_islands_and_holes_go_at_the_end() -> None:
    class Spotted(Discs):
        """Adds an island and a hole of one logit each to every mask."""

        def _decode(self, prompts: Prompts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            low_res, iou = super()._decode(prompts)
            found = low_res[:, 1].max((1, 2)) > 0
            low_res[found, 1, 11, 15] = low_res[found, 2, 11, 15] = 80
            low_res[found, 1, 3, 3] = low_res[found, 2, 3, 3] = -80  # in the red disc
            return low_res, iou

    options = EverythingOptions(points_per_side=8, pred_iou_thresh=0.85, stability_score_thresh=0.5)
    spotted = segment_everything(Spotted(), discs_photo(), options)
    assert len(spotted) == 3
    assert all(mask.box[2:] == (127, 95) for mask in spotted)  # the island is in the corner
    cleaned = segment_everything(Spotted(), discs_photo(), replace(options, min_mask_region_area=300))
    plain = segment_everything(Discs(), discs_photo(), options)
    assert [mask.box for mask in cleaned] == [mask.box for mask in plain]
    assert all((a.mask != b.mask).mean() < 0.002 for a, b in zip(cleaned, plain, strict=True))  # edges at the hole
    assert [mask.area for mask in cleaned] == [mask.mask.sum() for mask in cleaned]


def test_of_masks_that_become_alike_the_one_that_was_not_changed_stays() -> None:
    class Spotted(Discs):
        """Row 1 has an island, row 2, with the lower predicted IoU, is clean."""

        def _decode(self, prompts: Prompts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            low_res, iou = super()._decode(prompts)
            low_res[low_res[:, 1].max((1, 2)) > 0, 1, 11, 15] = 80
            return low_res, iou

    options = EverythingOptions(points_per_side=8, pred_iou_thresh=0.75, stability_score_thresh=0.5)
    assert {round(mask.iou_prediction, 1) for mask in segment_everything(Spotted(), discs_photo(), options)} == {
        0.9,
        0.8,
    }
    found = segment_everything(Spotted(), discs_photo(), replace(options, min_mask_region_area=300))
    assert [round(mask.iou_prediction, 1) for mask in found] == [0.8] * 3


def test_hierarchical_asks_fewer_points_and_finds_the_same_discs() -> None:
    options = EverythingOptions(points_per_side=16, pred_iou_thresh=0.5)
    all_asked, fewer = Discs(), Discs()
    expected = segment_everything(all_asked, discs_photo(), options)
    told: list[tuple[int, int]] = []
    found = segment_everything(
        fewer, discs_photo(), replace(options, hierarchical=True), progress=lambda *at: told.append(at)
    )
    assert [mask.box for mask in found] == [mask.box for mask in expected]
    assert sum(all_asked.batches) == 256
    in_discs = sum(discs_photo()[int(y), int(x)].any() for x, y in point_grid(16) * (128, 96))
    assert fewer.batches[0] == 16  # every fourth point a side
    assert sum(fewer.batches) < 256 - 0.5 * in_discs
    assert told[-1] == (256, 256)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_given_prompts_are_asked_instead_of_the_grid() -> None:
    predictor = Discs()
    prompts = GivenPrompts(points=np.array([[30.0, 30.0], [2.0, 90.0]]))
    found = segment_everything(predictor, discs_photo(), EverythingOptions(pred_iou_thresh=0.5), prompts)
    assert [mask.point for mask in found] == [(30, 30)]
    assert predictor.batches == [2]
    with pytest.raises(PromptError, match="crops have grids of their own"):
        segment_everything(predictor, discs_photo(), EverythingOptions(crop_n_layers=1), prompts)
    with pytest.raises(PromptError, match="expected pixels of the photo"):
        segment_everything(predictor, discs_photo(), None, GivenPrompts(points=np.array([[9000.0, 0.0]])))


def test_given_boxes_have_one_mask_each(small_predictor: Predictor) -> None:
    boxes = np.array([[10.0, 5.0, 60.0, 40.0], [30.0, 20.0, 90.0, 60.0]])
    found = segment_everything(small_predictor, None, KEEP_ALL, GivenPrompts(boxes=boxes))
    masks, iou, _ = small_predictor.predict_batch(boxes=boxes, multimask_output=False)
    assert len(found) == 2
    for mask in found:
        number = int(abs(iou[:, 0] - mask.iou_prediction).argmin())
        x0, y0, x1, y1 = boxes[number]
        assert mask.point == ((x0 + x1) / 2, (y0 + y1) / 2)
        assert (mask.mask != masks[number, 0]).mean() < 2e-3


def test_with_too_little_memory_batches_become_smaller_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Small(Discs):
        def _decode(self, prompts: Prompts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            if len(prompts) > 5:
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory")
            return super()._decode(prompts)

    options = EverythingOptions(points_per_side=8)
    found = segment_everything(Small(), discs_photo(), options)
    assert [mask.box for mask in found] == [mask.box for mask in segment_everything(Discs(), discs_photo(), options)]
    assert [record.getMessage() for record in caplog.records] == [
        "too little memory for 64 prompts at a time; going on with 32 and less"
    ]

    class Broken(Discs):
        def _decode(self, prompts: Prompts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        segment_everything(Broken(), discs_photo(), options)


def test_masks_without_the_predicted_iou_are_not_drawn() -> None:
    drawn: list[list[int]] = []

    class Lazy(Discs):
        def _decode_to_draw(self, prompts: Prompts) -> Answer:
            logits, iou = self._decode(prompts)
            iou = iou.copy()
            iou[1:, 1:] = 0.1

            def draw(prompt: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
                drawn.append([prompt, *rows])
                return logits[prompt, rows]

            return Answer(iou, draw)

    segment_everything(Lazy(), discs_photo(), EverythingOptions(points_per_side=4, pred_iou_thresh=0.85))
    assert drawn == [[0, 1]]  # the first point's first alternative, row 1 of the decoder


def test_threads_change_no_answer() -> None:
    class Threaded(Discs):
        concurrency = 3  # type: ignore[assignment]
        best_batch = 5  # type: ignore[assignment]

    for options in (EverythingOptions(points_per_side=8), EverythingOptions(points_per_side=12, hierarchical=True)):
        found = segment_everything(Threaded(), discs_photo(), options)
        expected = segment_everything(Discs(), discs_photo(), options)
        assert [(mask.box, mask.area, mask.point) for mask in found] == [
            (mask.box, mask.area, mask.point) for mask in expected
        ]


@given(st.integers(1, 40))
def test_the_grid_has_equal_cells(per_side: int) -> None:
    grid = point_grid(per_side)
    assert grid.shape == (per_side**2, 2)
    ticks = np.linspace(0.5 / per_side, 1 - 0.5 / per_side, per_side)
    np.testing.assert_allclose(grid[:per_side, 0], ticks, atol=1e-12)  # the first row: x runs
    np.testing.assert_allclose(grid[:per_side, 1], ticks[0], atol=1e-12)
    np.testing.assert_allclose(grid[::per_side, 1], ticks, atol=1e-12)


SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@given(SIZES, st.integers(0, 3), st.floats(0, 0.5))
def test_crops_cover_the_photo_and_stay_inside(size: tuple[int, int], layers: int, overlap_ratio: float) -> None:
    height, width = size
    crops = list(crop_boxes(size, layers, overlap_ratio))
    if min(size) > 200:  # a smaller photo may have fewer
        assert [layer for layer, _ in crops] == [layer for layer in range(layers + 1) for _ in range(4**layer)]
    for layer in range(layers + 1):
        boxes = [box for of, box in crops if of == layer]
        assert all(0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height for x0, y0, x1, y1 in boxes)
        for side, axis in ((width, 0), (height, 1)):
            spans = sorted({(box[axis], box[axis + 2]) for box in boxes})
            assert spans[0][0] == 0 and spans[-1][1] == side
            assert all(end >= start for (_, end), (start, _) in pairwise(spans))


def test_crops_of_a_known_size_are_sams() -> None:
    boxes = [box for _, box in crop_boxes((300, 600), 1, 512 / 1500)]
    overlap = int(512 / 1500 * 300)  # 102
    width, height = math.ceil((overlap + 600) / 2), math.ceil((overlap + 300) / 2)
    assert (overlap, width, height) == (102, 351, 201)
    assert boxes == [(0, 0, 600, 300), (0, 0, 351, 201), (0, 99, 351, 300), (249, 0, 600, 201), (249, 99, 600, 300)]


@given(st.data(), SIZES)
def test_points_of_crops_lie_in_the_photo_at_their_own_pixels(data: st.DataObject, size: tuple[int, int]) -> None:
    _, (x0, y0, x1, y1) = data.draw(st.sampled_from(list(crop_boxes(size, 2, 512 / 1500))))
    points = point_grid(4) * (x1 - x0, y1 - y0) + (x0, y0)
    assert (points > (x0, y0)).all() and (points < (x1, y1)).all()
    assert (to_image_frame(points * 0, size, 64) == 0).all()


def test_stability_is_the_share_of_the_larger_mask() -> None:
    logits = np.array([[2.0, 1.0, 0.5, -0.5], [-1.0, -1.5, -2.0, -3.0]], np.float32)
    assert stability_score(logits, 1.0) == 1 / 4  # above 1: one; above -1: four
    assert stability_score(logits, 0.1) == 1.0
    assert stability_score(logits - 10, 1.0) == 0.0  # not 0 / 0
    assert stability_score(np.full((3, 3), 5.0, np.float32), 1.0) == 1.0


@pytest.mark.parametrize(
    ("box", "touches"),
    [
        ((150, 150, 250, 250), False),
        ((120, 150, 250, 250), True),  # 20 pixels from the crop's left edge
        ((121, 150, 250, 250), False),
        ((150, 150, 380, 250), True),
        ((150, 150, 250, 379), False),
        ((150, 150, 250, 395), True),
        ((100, 100, 400, 400), True),
    ],
)
def test_masks_at_a_crops_edge_are_recognised(box: tuple[int, int, int, int], touches: bool) -> None:
    assert touches_crop_edge(box, (100, 100, 400, 400), (1000, 1000)) is touches


def test_the_photos_own_edge_is_no_crop_edge() -> None:
    assert not touches_crop_edge((0, 0, 350, 350), (0, 0, 400, 400), (1000, 1000))
    assert touches_crop_edge((0, 0, 390, 350), (0, 0, 400, 400), (1000, 1000))
    assert not touches_crop_edge((0, 0, 999, 999), (0, 0, 1000, 1000), (1000, 1000))
