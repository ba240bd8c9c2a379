"""The paper's tables: what is counted, the two-point protocol, and figures that show both models."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.paper import (
    DISTANCES,
    SAM_ENCODERS,
    fast_sam,
    main,
    millions,
    parameters,
    sam_parameters,
    training,
    two_places,
    two_points,
)
from mobilesam_export.errors import ExportError
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.photos import PHOTO_DIR
from reference.mobile_sam import MobileSam


def test_parameters_are_those_of_built_modules_and_near_the_papers() -> None:
    rows = {row.what: row for row in parameters()}
    # The public figures count SAM ViT-H's as 632, the module with its relative positions has 637.
    assert {name: round(sam_parameters(*of[:4])["encoder"]) for name, of in SAM_ENCODERS.items()} == {
        "ViT-H": 637,
        "ViT-L": 308,
        "ViT-B": 90,
    }
    sam = MobileSam()
    assert rows["MobileSAM, mask decoder"].got == millions(sam.mask_decoder) == pytest.approx(4.058, abs=5e-4)
    assert rows["MobileSAM, prompt encoder"].got == pytest.approx(0.006, abs=5e-4)
    assert rows["MobileSAM, image encoder"].got == pytest.approx(5.744, abs=5e-4)  # pipeline fact: 6.066 with the head


def test_two_points_lie_in_the_photo_as_far_apart_as_asked() -> None:
    rng = np.random.default_rng(0)
    for distance in (10, 60):
        for _ in range(50):
            points = two_places(rng, (50, 80), distance)
            assert points is not None
            assert math.dist(*points) == pytest.approx(distance)
            assert all(0 <= x <= 79 and 0 <= y <= 49 for x, y in points)
    assert two_places(rng, (50, 80), 200) is None


def test_the_protocol_is_the_mean_iou_with_the_teachers_masks_and_leaves_out_empty_ones() -> None:
    shape = PHOTOS[1].read().shape[:2]
    upper, left, calls = np.zeros(shape, bool), np.zeros(shape, bool), []
    upper[: shape[0] // 2], left[:, : shape[1] // 2] = True, True

    def teacher(pixels: object, points: object) -> np.ndarray:
        calls.append(points)
        return np.zeros(shape, bool) if len(calls) % 2 else upper

    found = two_points(teacher, lambda pixels, points: left, PHOTOS[1:2], count=4)
    assert list(found) == list(DISTANCES)
    assert all(miou == pytest.approx(1 / 3) and prompts == 2 for miou, prompts in found.values())
    again = two_points(lambda pixels, points: upper, lambda pixels, points: upper, PHOTOS[1:2], count=4)
    assert {miou for miou, _ in again.values()} == {1.0}


def test_tables_two_and_four_are_read_from_the_training_modules_file(tmp_path: Path) -> None:
    path = tmp_path / "reproduced.json"
    assert {row.got for row in training(path)} == {None}
    path.write_text(json.dumps({"rows": [{"table": "2", "label": "decoupled", "miou": [0.4, 0.5]}]}))
    (row,) = training(path)
    assert (row.got, row.paper) == (pytest.approx(0.45), 0.75)


def test_fastsam_without_ultralytics_is_refused_in_one_line() -> None:
    with pytest.raises(ExportError, match="needs ultralytics"):
        fast_sam("FastSAM-x.pt")


def test_the_command_writes_tables_and_three_figures(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.open(PHOTO_DIR / "coffee.png").resize((96, 64)).save(photos / "small.png")
    given = ["--image-size", "64", "--photos", str(photos), "--prompts", "1", "--rounds", "1", "--out", str(tmp_path)]
    assert main(given) == 0
    written = json.loads((tmp_path / "paper.json").read_text())
    assert all(row["how"] for row in written["rows"])
    assert {row["table"] for row in written["rows"]} == {"1", "2", "3", "4", "5", "6, 7"}
    assert "not measured" in (tmp_path / "paper.md").read_text()  # FastSAM, and how to have it
    for kind in ("point", "box", "everything"):
        assert np.asarray(Image.open(tmp_path / f"paper-{kind}.png")).std() > 10
