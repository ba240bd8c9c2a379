"""The host API in Python: which mask, which error, and that a failure leaves it usable."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mobilesam_export import segmenter as module
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.segmenter import Box, Mask, Point, Segmenter, SegmenterError
from reference import Predictor, load_mobile_sam

COFFEE = PHOTOS[1]  # 600 x 400


@dataclass(frozen=True)
class WrongCall:
    """One ``predict``."""

    code: str
    points: tuple[Point, ...] = ()
    box: Box | None = None
    wrong_mask: bool = False
    photo_first: bool = True


HOST_ERRORS = {
    "no photo": WrongCall("no_image", ((1, 1),), photo_first=False),
    "nothing": WrongCall("no_prompt"),
    "outside": WrongCall("point_outside", ((600.5, 1),)),
    "not a number": WrongCall("point_outside", ((float("nan"), 1),)),
    "box outside": WrongCall("point_outside", box=(-1, 0, 5, 5)),
    "label": WrongCall("point_label", ((1, 1, 3),)),
    "swapped corners": WrongCall("box_corners", box=(5, 5, 1, 9)),
    "a mask of another size": WrongCall("mask_size", ((1, 1),), wrong_mask=True),
}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(load_mobile_sam("demo", 128))


@pytest.fixture
def segmenter(predictor: Predictor) -> Segmenter:
    predictor.original_size = predictor.image_embeddings = None
    return Segmenter(predictor)


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    return COFFEE.read()


def test_one_foreground_point_gives_the_best_of_three(
    segmenter: Segmenter, predictor: Predictor, photo: NDArray[np.uint8]
) -> None:
    segmenter.set_image(photo)
    mask, score = segmenter.predict([COFFEE.point])
    masks, iou, low_res = predictor.predict([COFFEE.point], [1], multimask_output=True)
    best = int(iou.argmax())
    assert iou[best] > iou[(best + 1) % 3], "the photo has a best one"
    np.testing.assert_array_equal(mask.pixels, masks[best])
    np.testing.assert_array_equal(mask.logits, low_res[best])
    assert score == iou[best]


@pytest.mark.parametrize(
    ("points", "box"),
    [
        ([(126, 262), (439, 212, 1), (287, 151, 0)], None),
        ([], (171, 15, 424, 313)),
        ([(287, 151, 0)], None),
        ([(126, 262)], (75, 60, 479, 389)),
    ],
)
def test_every_other_prompt_gives_row_0(
    segmenter: Segmenter,
    predictor: Predictor,
    photo: NDArray[np.uint8],
    points: list[Point],
    box: Box | None,
) -> None:
    segmenter.set_image(photo)
    mask, score = segmenter.predict(points, box)
    labels = [point[2] if len(point) == 3 else 1 for point in points]
    coords = [point[:2] for point in points]
    masks, iou, _ = predictor.predict(coords or None, labels or None, box, multimask_output=False)
    np.testing.assert_array_equal(mask.pixels, masks[0])
    assert score == iou[0]


def test_a_mask_refines_through_its_logits(
    segmenter: Segmenter, predictor: Predictor, photo: NDArray[np.uint8]
) -> None:
    segmenter.set_image(photo)
    first, _ = segmenter.predict([COFFEE.point])
    refined, _ = segmenter.predict([COFFEE.point], previous_mask=first)
    masks, _, _ = predictor.predict([COFFEE.point], [1], mask_input=first.logits[None], multimask_output=False)
    np.testing.assert_array_equal(refined.pixels, masks[0])
    assert (refined.pixels != first.pixels).any()


@pytest.mark.parametrize("name", HOST_ERRORS)
def test_every_wrong_call_has_its_code_and_leaves_it_usable(
    segmenter: Segmenter, photo: NDArray[np.uint8], name: str
) -> None:
    case = HOST_ERRORS[name]
    if case.photo_first:
        segmenter.set_image(photo)
    previous = Mask(np.zeros((1, 1), bool), np.zeros((9, 9), np.float32)) if case.wrong_mask else None
    with pytest.raises(SegmenterError) as caught:
        segmenter.predict(case.points, case.box, previous)
    assert caught.value.code == case.code
    segmenter.set_image(photo)
    assert segmenter.predict([COFFEE.point])[0].pixels.any()


def test_a_photo_that_is_none_or_too_large_leaves_the_earlier_one(
    segmenter: Segmenter, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter.set_image(photo)
    before, _ = segmenter.predict([COFFEE.point])
    monkeypatch.setattr(module, "LARGEST_PHOTO_PIXELS", 999)
    for wrong in (np.zeros((4, 4), np.float32), np.zeros((0, 4, 3), np.uint8), Image.new("L", (100, 10))):
        with pytest.raises(SegmenterError) as caught:
            segmenter.set_image(wrong)  # type: ignore[arg-type]
        assert caught.value.code == "image"
    np.testing.assert_array_equal(segmenter.predict([COFFEE.point])[0].pixels, before.pixels)


def test_reset_forgets_the_photo_and_close_ends_it(segmenter: Segmenter, photo: NDArray[np.uint8]) -> None:
    segmenter.set_image(photo)
    segmenter.reset()
    with pytest.raises(SegmenterError) as caught:
        segmenter.predict([COFFEE.point])
    assert caught.value.code == "no_image"
    segmenter.close()
    for call in (lambda: segmenter.predict([COFFEE.point]), lambda: segmenter.set_image(photo), segmenter.reset):
        with pytest.raises(SegmenterError) as caught:
            call()
        assert caught.value.code == "closed"


def test_models_of_another_contract_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"contract_version": "2"}))
    with pytest.raises(SegmenterError, match="contract version 2, this code 1") as caught:
        Segmenter.open(tmp_path)
    assert caught.value.code == "contract_version"
