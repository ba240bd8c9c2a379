"""COCO, LVIS, SA-1B and mask pictures say the same of the same photos; whatever is wrong costs itself only."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilesam_export.accuracy.annotations import read_dataset
from mobilesam_export.accuracy.dataset import Annotation, Skipped
from mobilesam_export.accuracy.truth import Truth, truth_of
from mobilesam_export.errors import ExportError
from reference import run_lengths
from tests.accuracy.brightness import write_coco, write_photos

SIZE = (64, 64)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_photos(tmp_path / "images")
    return tmp_path / "images"


def truths(images: Path, annotations: Path | None) -> dict[str, list[Truth]]:
    """By the photo's file."""
    found: dict[str, list[Truth]] = {}
    for photo in read_dataset(images, annotations).photos:
        each = photo.read()
        assert all(isinstance(annotation, Annotation) for annotation in each)
        found[photo.path.name] = [truth_of(annotation, SIZE) for annotation in each]  # type: ignore[arg-type]
    return found


def squares() -> dict[str, np.ndarray]:
    found = {}
    for number in range(5):
        mask = np.zeros(SIZE, bool)
        mask[8 : 32 + 4 * number, 4 * number : 24 + 8 * number] = True
        found[f"photo{number}.png"] = mask
    return found


def check(found: dict[str, list[Truth]]) -> None:
    assert found.keys() == squares().keys()
    for name, mask in squares().items():
        (truth,) = found[name]
        np.testing.assert_array_equal(truth.mask, mask)
        rows, columns = np.nonzero(mask)
        assert truth.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert truth.area == mask.sum()


def test_coco_with_polygons(images: Path, tmp_path: Path) -> None:
    check(truths(images, write_coco(tmp_path / "instances.json", write_photos(images))))


def test_coco_with_run_lengths_of_both_kinds(images: Path, tmp_path: Path) -> None:
    annotations = write_photos(images)
    for annotation, mask in zip(annotations, squares().values(), strict=True):
        annotation["segmentation"] = run_lengths.encode(mask)
    columns = squares()["photo4.png"].T.reshape(-1)
    edges = np.flatnonzero(np.diff(columns)) + 1
    annotations[4]["segmentation"]["counts"] = np.diff([0, *edges, columns.size]).tolist()
    check(truths(images, write_coco(tmp_path / "instances.json", annotations)))


def test_lvis_names_photos_by_their_address(images: Path, tmp_path: Path) -> None:
    document = json.loads(write_coco(tmp_path / "lvis.json", write_photos(images)).read_text())
    for record in document["images"]:
        record["coco_url"] = f"http://images.cocodataset.org/val2017/{record.pop('file_name')}"
    (images / "val2017").mkdir()
    (images / "photo2.png").rename(images / "val2017" / "photo2.png")  # as where train2017 and val2017 lie side by side
    (tmp_path / "lvis.json").write_text(json.dumps(document))
    check(truths(images, tmp_path / "lvis.json"))


@pytest.mark.parametrize("beside", [True, False])
def test_sa1b(images: Path, tmp_path: Path, beside: bool) -> None:
    documents = images if beside else tmp_path / "documents"
    documents.mkdir(exist_ok=True)
    for name, mask in squares().items():
        entry = {"id": 1, "segmentation": run_lengths.encode(mask), "area": int(mask.sum())}
        (documents / name).with_suffix(".json").write_text(json.dumps({"image": {}, "annotations": [entry]}))
    check(truths(images, None if beside else documents))


@pytest.mark.parametrize("names", ["{}.png", "{}-1.png", "{}/first.png"])
@pytest.mark.parametrize("white", [255, 1])
def test_mask_pictures(images: Path, tmp_path: Path, names: str, white: int) -> None:
    for name, mask in squares().items():
        path = tmp_path / "masks" / names.format(Path(name).stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * white).save(path)
    check(truths(images, tmp_path / "masks"))


def test_several_masks_of_one_photo(images: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for ending in ("-1", "-2", ""):
        Image.fromarray(squares()["photo1.png"]).save(tmp_path / "masks" / f"photo1{ending}.png")
    dataset = read_dataset(images, tmp_path / "masks")
    assert [photo.name for photo in dataset.photos] == ["photo1.png"]
    assert len(dataset.photos[0].read()) == 3
    assert dataset.unannotated == 4


def test_photos_without_annotations_are_counted(images: Path, tmp_path: Path) -> None:
    dataset = read_dataset(images, write_coco(tmp_path / "instances.json", write_photos(images)[1:3]))
    assert [photo.name for photo in dataset.photos] == ["1", "2"]
    assert dataset.unannotated == 3


def test_annotations_of_no_photo_are_named(images: Path, tmp_path: Path) -> None:
    stray = [{"id": 77, "image_id": 900, "segmentation": []}, "nonsense"]
    dataset = read_dataset(images, write_coco(tmp_path / "instances.json", [*write_photos(images), *stray]))
    assert [entry.name for entry in dataset.skipped] == ["77", "an annotation without id"]
    assert "image_id 900" in dataset.skipped[0].reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"segmentation": {"size": [63, 64], "counts": [1]}}, r"mask of size \[63, 64\] on a picture of \[64, 64\]"),
        ({"segmentation": {"size": [64, 64], "counts": [4096]}}, "an empty mask"),
        ({"segmentation": [[200, 200, 210, 200, 210, 210]]}, "an empty mask"),
        ({"segmentation": None}, "expected a run-length code"),
        ({"segmentation": []}, "no polygon"),
        ({"bbox": [1, 2, 0, 5]}, "a bbox of 0 x 5 pixels"),
        ({"bbox": [1, 2, 3]}, r"a bbox of \[1, 2, 3\]"),
        ({"bbox": [1, 2, True, 3]}, "a bbox of"),
        ({"bbox": [1, 2, float("nan"), 3]}, "a bbox of"),
        ({"area": -1}, "an area of -1"),
        ({"area": "large"}, "an area of large"),
        ({"category_id": "cat"}, "a category_id of cat"),
    ],
)
def test_a_wrong_annotation_has_a_reason(images: Path, tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    annotations = write_photos(images)
    annotations[0] |= change
    dataset = read_dataset(images, write_coco(tmp_path / "instances.json", annotations))
    (entry,) = dataset.photos[0].read()
    with pytest.raises(ValueError, match=reason):
        if isinstance(entry, Skipped):
            raise ValueError(entry.reason)
        truth_of(entry, SIZE)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "has no lists of images and annotations"),
        ('{"images": [], "annotations": {}}', "has no lists"),
        ('{"images": [], "annotations": []}', "none of these is on one of those"),
        ('{"images": [{"file_name": "a.png"}], "annotations": []}', "image 0 has no id"),
        (
            '{"images": [{"id": 1, "file_name": "a", "height": 0, "width": 5}], "annotations": [{"image_id": 1}]}',
            "a side of 0",
        ),
        ('{"images": [{"id": 1, "height": 5, "width": 5}], "annotations": [{"image_id": 1}]}', "the file name 'None'"),
        (
            '{"images": [{"id": 1, "file_name": "../a", "height": 5, "width": 5}], "annotations": [{"image_id": 1}]}',
            "expected one below",
        ),
    ],
)
def test_what_is_no_coco_is_told(images: Path, tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(content)
    with pytest.raises(ExportError, match=told):
        read_dataset(images, path)


def test_folders_that_do_not_belong_together_are_told(images: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ExportError, match=r"no photo in .*images has a mask in"):
        read_dataset(images, tmp_path / "other")
    (tmp_path / "other" / "sa_1.json").write_text("{}")
    with pytest.raises(ExportError, match=r"no photo in .* has masks of its name"):
        read_dataset(images, tmp_path / "other")
    with pytest.raises(ExportError, match="expected a folder of photos"):
        read_dataset(tmp_path / "nowhere", None)
    with pytest.raises(ExportError, match="there is no annotation file"):
        read_dataset(images, tmp_path / "nowhere.json")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n12345"])
def test_a_damaged_mask_picture_has_a_reason(images: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "photo1.png").write_bytes(content)
    (annotation,) = read_dataset(images, tmp_path / "masks").photos[0].read()
    assert isinstance(annotation, Annotation)
    with pytest.raises(ValueError, match="no PNG picture"):
        truth_of(annotation, SIZE)
