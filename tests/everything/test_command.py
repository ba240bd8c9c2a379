"""``mobilesam-export everything``: the official generator's records, in COCO's document."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from mobilesam_export import cli
from mobilesam_export.accuracy.annotations import read_dataset
from mobilesam_export.bundle.predictor import load_bundle
from mobilesam_export.cli.everything import OPTIONS
from mobilesam_export.photos import PHOTO_DIR
from reference.checkpoint import load_mobile_sam
from reference.everything import segment_everything
from reference.everything_options import EverythingOptions, GivenPrompts
from reference.found_mask import FoundMask
from reference.images import read_image
from reference.mobile_sam import MobileSam
from tests.fake_target import install

SIZE = 64
COFFEE = PHOTO_DIR / "coffee.png"
ASKED = EverythingOptions(points_per_side=3, pred_iou_thresh=0.2, stability_score_thresh=0.3, min_mask_region_area=50)
KEYS = {"segmentation", "area", "bbox", "predicted_iou", "point_coords", "stability_score", "crop_box"}  # SAM's
FLAGS = [
    word
    for name in ("points_per_side", "pred_iou_thresh", "stability_score_thresh", "min_mask_region_area")
    for word in ("--" + name.replace("_", "-"), str(getattr(ASKED, name)))
]


@pytest.fixture(scope="module")
def sam() -> MobileSam:
    return load_mobile_sam("demo", SIZE)


@pytest.fixture(scope="module")
def dist(sam: MobileSam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "dist"
    with pytest.MonkeyPatch.context() as monkeypatch:
        install(monkeypatch, sam)
        arguments = [
            "export",
            "--checkpoint",
            "demo",
            "--image-size",
            str(SIZE),
            "--out",
            str(out),
            "--no-verify",
            "-q",
        ]
        assert cli.main(arguments) == 0
    return out


@pytest.fixture(autouse=True)
def fake(sam: MobileSam, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, sam)


def find(dist: Path, prompts: GivenPrompts | None = None) -> list[FoundMask]:
    with load_bundle(dist) as predictor:
        return segment_everything(predictor, read_image(COFFEE), ASKED, prompts)


def run(dist: Path, tmp_path: Path, *more: str) -> dict[str, Any]:
    out = tmp_path / "masks.json"
    assert cli.main(["everything", str(COFFEE), "--bundle", str(dist), "-o", str(out), "-q", *FLAGS, *more]) == 0
    document: dict[str, Any] = json.loads(out.read_text())
    return document


def test_the_document_is_cocos_with_the_official_keys(
    dist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run(dist, tmp_path)
    assert capsys.readouterr().out.strip() == str(tmp_path / "masks.json")
    expected = find(dist)
    assert len(document["annotations"]) == len(expected) > 2
    assert document["images"] == [{"id": 1, "file_name": "coffee.png", "height": 400, "width": 600}]
    coco = COCO(tmp_path / "masks.json")
    for record, found in zip(document["annotations"], expected, strict=True):
        assert record.keys() == KEYS | {"id", "image_id", "category_id", "iscrowd"}
        np.testing.assert_array_equal(coco.annToMask(record).astype(bool), found.mask)
        x0, y0, x1, y1 = found.box
        assert record["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert record["area"] == found.area
        assert record["predicted_iou"] == pytest.approx(found.iou_prediction, abs=1e-6)
        assert record["stability_score"] == pytest.approx(found.stability_score, abs=1e-6)
        assert record["point_coords"] == [pytest.approx(found.point, abs=1e-3)]
        assert record["crop_box"] == [0, 0, 600, 400]


def test_polygons_are_the_masks_without_their_holes(dist: Path, tmp_path: Path) -> None:
    document = run(dist, tmp_path, "--segmentation", "polygons")
    coco = COCO(tmp_path / "masks.json")
    whole = [found.mask for found in find(dist)]
    for record, mask in zip(document["annotations"], whole, strict=True):
        drawn = coco.annToMask(record).astype(bool)
        assert not (mask & ~drawn).any()
    assert any((coco.annToMask(r) == m).all() for r, m in zip(document["annotations"], whole, strict=True))


def test_a_stack_of_pictures_can_be_measured_on(dist: Path, tmp_path: Path) -> None:
    (tmp_path / "masks" / "coffee").mkdir(parents=True)
    (tmp_path / "masks" / "coffee" / "400.png").write_bytes(b"of an earlier run")
    run(dist, tmp_path, "--png", str(tmp_path / "masks"), "--overwrite")
    expected = find(dist)
    files = sorted((tmp_path / "masks" / "coffee").iterdir())
    assert [file.name for file in files] == [f"{number:03d}.png" for number in range(len(expected))]
    for file, found in zip(files, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(file)) > 0, found.mask)
    (photo,) = read_dataset(PHOTO_DIR, tmp_path / "masks").photos
    assert photo.path == COFFEE and len(photo.read()) == len(expected)


def test_the_overlay_shows_every_mask_and_nothing_else(dist: Path, tmp_path: Path) -> None:
    run(dist, tmp_path, "--overlay", str(tmp_path / "shown.png"))
    changed = (np.asarray(Image.open(tmp_path / "shown.png")) != read_image(COFFEE)).any(axis=2)
    union = np.any([found.mask for found in find(dist)], axis=0)
    assert not changed[~union].any()
    assert changed[union].mean() > 0.99  # a pixel may have its colour already


def test_prompts_come_from_a_file(dist: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    given = {"points": [[300, 150], [20, 390.5]], "boxes": [[170, 20, 430, 310]]}
    file.write_text(json.dumps(given))
    expected = find(dist, GivenPrompts(np.array(given["points"]), np.array(given["boxes"])))
    document = run(dist, tmp_path, "--prompts", str(file))
    assert [record["area"] for record in document["annotations"]] == [found.area for found in expected]
    assert expected
    file.write_text(json.dumps({"coffee.png": given, "other.png": {"points": []}}))
    assert run(dist, tmp_path, "--prompts", str(file), "--overwrite") == document


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", r"is \[\], expected an object; give"),
        ('{"points": 3}', "points is 3, expected a list"),
        ('{"points": [[1]]}', r"points\[0\] is \[1\], expected 2 numbers"),
        ('{"boxes": [[1, 2, 3, "4"]]}', "expected a number"),
        ('{"points": [], "masks": []}', "expected nothing of that name, but points and boxes"),
        ('{"points": []}', "has no prompt for coffee.png"),
        ('{"tea.png": {"points": [[1, 2]]}}', "has no prompt for coffee.png"),
        ('{"boxes": [[430, 20, 170, 310]]}', "expected x0, y0, x1, y1 with x0 < x1"),
        ("{", "is no file of prompts"),
    ],
)
def test_what_are_no_prompts_is_told(
    dist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, told: str
) -> None:
    (tmp_path / "prompts.json").write_text(content)
    out = ["-o", str(tmp_path / "masks.json"), "--prompts", str(tmp_path / "prompts.json")]
    assert cli.main(["everything", str(COFFEE), "--bundle", str(dist), *out]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert pytest.importorskip("re").search(told, line), line
    assert not (tmp_path / "masks.json").exists()


def test_thresholds_that_remove_everything_give_an_empty_list(dist: Path, tmp_path: Path) -> None:
    document = run(dist, tmp_path, "--pred-iou-thresh", "5", "--overlay", str(tmp_path / "shown.png"))
    assert document["annotations"] == []
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "shown.png")), read_image(COFFEE))


def test_of_several_photos_a_broken_one_is_named_and_the_others_are_done(
    dist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.open(COFFEE).resize((90, 60)).save(folder / "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    Image.open(COFFEE).resize((60, 40)).save(folder / "c.png")
    out = ["-o", str(tmp_path / "m.json"), "--overlay", str(tmp_path / "shown")]
    assert cli.main(["everything", str(folder), "--bundle", str(dist), "-q", *FLAGS, *out]) == 1
    captured = capsys.readouterr()
    assert "b.png: " in captured.err and "1 of 3 photos were not segmented" in captured.err
    document = json.loads((tmp_path / "m.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["a.png", "c.png"]
    assert {record["image_id"] for record in document["annotations"]} == {1, 2}
    assert [record["id"] for record in document["annotations"]] == list(range(1, len(document["annotations"]) + 1))
    assert captured.out.split() == [str(tmp_path / name) for name in ("m.json", "shown/a.png", "shown/c.png")]


def test_nothing_is_replaced_without_being_asked(
    dist: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "masks.json").write_text("{}")
    arguments = ["everything", str(COFFEE), "--bundle", str(dist), "-o", str(tmp_path / "masks.json")]
    assert cli.main(arguments) == 1
    assert "masks.json exists; choose another place" in capsys.readouterr().err
    assert (tmp_path / "masks.json").read_text() == "{}"


def test_every_option_of_everything_mode_is_one_of_the_command() -> None:
    assert set(OPTIONS) == {option.name for option in fields(EverythingOptions)}
    parsed = cli._parser().parse_args(["everything", "photo.jpg"])
    assert EverythingOptions(**{name: getattr(parsed, name) for name in OPTIONS}) == EverythingOptions()
