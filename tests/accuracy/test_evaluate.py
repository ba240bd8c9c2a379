"""A measurement goes through whatever photos and annotations it meets, and a killed one goes on where it was."""

import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mobilesam_export.accuracy.annotations import read_dataset
from mobilesam_export.accuracy.detections import Detections, read_detections
from mobilesam_export.accuracy.embeddings import EmbeddingCache
from mobilesam_export.accuracy.evaluate import Measured, evaluate
from mobilesam_export.accuracy.prompts import prompt_of
from mobilesam_export.accuracy.report import report_of
from mobilesam_export.accuracy.subject import Subject
from mobilesam_export.errors import ExportError
from mobilesam_export.journal import Journal
from mobilesam_export.progress import Progress
from tests.accuracy.brightness import FACTS, Brightness, subject_of, write_coco, write_photos

NEARLY = pytest.approx(1, abs=0.01)  # the four corner pixels of a square are lost between logits and photo
PROMPTS = ("box", "click", "clicks:3")


class Run:
    """A dataset of five photos and what is measured on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.images = folder, folder / "images"
        self.annotations = write_photos(self.images)
        self.heading: dict[str, Any] = {"subject": FACTS}

    def __call__(self, model: Brightness | None = None, prompts: tuple[str, ...] = PROMPTS, **more: Any) -> Measured:
        subject = more.pop("subject", None) or subject_of(model or Brightness())
        overwrite = more.pop("overwrite", False)
        dataset = read_dataset(self.images, write_coco(self.folder / "instances.json", self.annotations))
        with closing(Journal(self.folder / "report.jsonl", self.heading, overwrite)) as journal:
            return evaluate(subject, dataset, list(map(prompt_of, prompts)), journal, Progress(), **more)

    def report(
        self, measured: Measured, detections: Detections | None = None, prompts: tuple[str, ...] = PROMPTS
    ) -> dict[str, Any]:
        dataset = read_dataset(self.images, self.folder / "instances.json")
        return report_of(measured, dataset, list(map(prompt_of, prompts)), self.heading, detections is not None)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def answers(measured: Measured) -> list[dict[str, Any]]:
    return [entry["answers"] for record in measured.records for entry in record["objects"]]


def test_each_prompt_takes_the_mask_that_it_should(run: Run) -> None:
    for answer in answers(run()):
        assert answer["box"] == {"iou": NEARLY, "iou_prediction": pytest.approx(0.8), "best_iou": NEARLY}  # of all four
        assert answer["click"]["iou_prediction"] == pytest.approx(0.7)  # of the last three
        assert answer["click"]["best_iou"] == NEARLY
        assert answer["clicks:3"]["iou_prediction"] == pytest.approx(0.8)  # the first takes row 2, the others row 0
        assert answer["clicks:3"]["after"] == [NEARLY, NEARLY, NEARLY]


def test_corrections_fall_where_the_mask_is_wrong_most_deeply() -> None:
    class Recorder(Brightness):
        def __init__(self) -> None:
            super().__init__()
            self.prompts: list[Any] = []

        def _decode(self, prompts: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            self.prompts.append(prompts)
            return super()._decode(prompts)

    from mobilesam_export.accuracy.truth import Truth

    photo = np.zeros((64, 64, 3), np.uint8)
    photo[16:48, 8:40] = 200  # what the model finds
    model = Recorder()
    model.set_image(photo)
    truth = np.zeros((64, 64), bool)
    truth[16:48, 24:60] = True  # what it should have found
    answer = prompt_of("clicks:3").ask(model, Truth(truth, (24, 16, 60, 48), truth.sum()))
    first, second, third = model.prompts
    assert first.points.tolist() == [[[39, 31]]] and first.masks is None  # the middle of the object, of even sides
    assert second.points.tolist()[0][1] == [49, 25] and second.labels.tolist() == [[1, 1]]  # the part that is missing
    assert second.masks is not None and second.masks.shape == (1, 1, 16, 16)
    assert third.labels.tolist()[0] == [1, 1, 1]
    overlap, both = 32 * 16, 32 * 32 + 32 * 36 - 32 * 16
    assert answer.after == pytest.approx((overlap / both,) * 3, abs=0.01)

    truth[:] = False
    truth[16:48, 36:44] = True
    prompt_of("clicks:2").ask(model, Truth(truth, (36, 16, 44, 48), truth.sum()))
    assert model.prompts[-1].labels.tolist() == [[1, 0]]  # now too much is worse than too little


def test_a_killed_run_goes_on_where_it_was(run: Run) -> None:
    whole = run()
    lines = (run.folder / "report.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    for kept in (0, 1, 3, 5, 6):
        for cut in (0, 1, len(lines[min(kept, 5)]) // 2, len(lines[min(kept, 5)]) - 1):
            if kept == 6 and cut:
                continue
            rest = b"" if kept == 6 else lines[kept][:cut]
            (run.folder / "report.jsonl").write_bytes(b"".join(lines[:kept]) + rest)
            model = Brightness()
            again = run(model)
            assert again.records == whole.records
            assert model.encoded == again.measured_now == min(6 - kept, 5)


def test_a_run_that_is_interrupted_keeps_what_it_has(run: Run) -> None:
    class Interrupted(Brightness):
        def _encode(self, resized: NDArray[np.uint8]) -> NDArray[np.float32]:
            if self.encoded == 3:
                raise KeyboardInterrupt
            return super()._encode(resized)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted())
    model = Brightness()
    assert len(run(model).records) == 5
    assert model.encoded == 2


def test_a_larger_limit_goes_on_and_a_smaller_one_is_answered_at_once(run: Run) -> None:
    model = Brightness()
    assert len(run(model, limit=2).records) == 2
    assert len(run(model, limit=4).records) == 4
    assert model.encoded == 4
    assert [record["photo"] for record in run(model, limit=3).records] == ["0", "1", "2"]
    assert model.encoded == 4


def test_another_measurement_does_not_go_on_in_a_journal(run: Run) -> None:
    run()
    run.heading = {"subject": FACTS, "asked": ["box"]}
    with pytest.raises(
        ExportError, match=r"another measurement \(asked null, here .*; choose another --out, or --overwrite"
    ):
        run()
    assert len(run(overwrite=True).records) == 5
    (run.folder / "report.jsonl").write_text("a shopping list\n")
    with pytest.raises(ExportError, match="something else than a measurement"):
        run()
    assert (run.folder / "report.jsonl").read_text() == "a shopping list\n"


def test_two_runs_at_once_are_kept_apart(run: Run) -> None:
    pytest.importorskip("fcntl")
    run()
    with (
        closing(Journal(run.folder / "report.jsonl", run.heading)),
        pytest.raises(ExportError, match="another run is writing"),
    ):
        run()


def test_unreadable_photos_and_wrong_annotations_are_counted_and_named(run: Run) -> None:
    (run.images / "photo0.png").write_bytes(b"no picture")
    (run.images / "photo1.png").unlink()
    Image.new("RGB", (32, 32)).save(run.images / "photo2.png")
    run.annotations[3]["segmentation"] = {"size": [1, 1], "counts": "0"}
    run.annotations += [{**run.annotations[3], "id": 90, "bbox": [900, 900, 4, 4]}]
    run.annotations[-1]["segmentation"] = run.annotations[4]["segmentation"]
    report = run.report(run())
    assert report["photos"]["measured"] == 2
    assert [(entry["name"], entry["reason"].partition("(")[0]) for entry in report["photos"]["unreadable_named"]] == [
        ("0", f"{run.images}/photo0.png cannot be read as an image; expected JPEG, PNG, WebP or the like"),
        ("1", f"there is no photo at {run.images}/photo1.png; check the path"),
        ("2", f"{run.images}/photo2.png has [32, 32] pixels, its annotations are for [64, 64]"),
    ]
    assert report["skipped_annotations"] == 2
    assert [entry["name"] for entry in report["skipped_annotations_named"]] == ["13", "90"]
    assert report["skipped_annotations_named"][0]["reason"] == "mask of size [1, 1] on a picture of [64, 64]"
    assert "900" in report["skipped_annotations_named"][1]["reason"]
    assert report["prompts"]["box"]["objects"] == 1


def test_if_nothing_can_be_measured_on_that_is_said(run: Run) -> None:
    for annotation in run.annotations:
        annotation["bbox"] = [0, 0, 0, 0]
    with pytest.raises(
        ExportError, match="no annotation of 5 photos could be measured on; the first, 10: a bbox of 0 x 0"
    ):
        run()
    for photo in run.images.iterdir():
        photo.unlink()
    with pytest.raises(ExportError, match=r"none of 5 photos could be measured on; the first, 0: there is no photo"):
        run(overwrite=True)


def test_crowds_are_asked_for_like_all_others_and_counted(run: Run) -> None:
    run.annotations[2]["iscrowd"] = 1
    report = run.report(run())
    assert report["crowds"] == 1
    assert report["prompts"]["box"]["objects"] == 5


def test_a_photo_is_encoded_once_for_all_runs_with_a_cache(run: Run) -> None:
    model = Brightness()
    cache = EmbeddingCache(run.folder / "cache", subject_of(model))
    first = run(model, cache=cache)
    again = run(model, cache=cache, overwrite=True)
    assert again.records == first.records == run(overwrite=True).records
    assert model.encoded == 5
    files = sorted((run.folder / "cache").rglob("*.safetensors"))
    assert len(files) == 5
    for file in files:
        os.truncate(file, 100)  # damaged: made again
    pixels = np.zeros((64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(run.images / "photo1.png")  # another photo of that name: encoded
    again = run(model, cache=cache, overwrite=True)
    assert model.encoded == 10
    assert run(model, cache=cache, overwrite=True).records == again.records
    assert model.encoded == 10
    other = Brightness()
    subject = Subject(other, FACTS, "another encoder", None)
    run(cache=EmbeddingCache(run.folder / "cache", subject), subject=subject, overwrite=True)
    assert other.encoded == 5


@pytest.mark.parametrize("workers", [1, 4])
def test_photos_come_in_their_order_however_many_are_read_ahead(run: Run, workers: int) -> None:
    measured = run(workers=workers)
    assert [record["photo"] for record in measured.records] == ["0", "1", "2", "3", "4"]
    assert [record["objects"][0]["area"] for record in measured.records] == [24**2, 28**2, 32**2, 36**2, 40**2]


def test_more_clicks_than_a_decoder_holds_are_refused_before_any_work(run: Run) -> None:
    model = Brightness()
    subject = Subject(model, FACTS, "brightness", 3)
    with pytest.raises(ExportError, match=r"--prompt clicks:3 takes 4 slots .* holds 3"):
        run(subject=subject)
    assert model.encoded == 0


def test_pixels_are_taken_as_they_are_stored_where_coco_annotates_them(run: Run) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for path in run.images.iterdir():
        Image.open(path).save(path, exif=exif)
    assert all(answer["box"]["iou"] == NEARLY for answer in answers(run()))


@pytest.mark.parametrize(
    "text", ["", "boxes", "clicks", "clicks:0", "clicks:-1", "clicks:101", "clicks:1e1", "clicks:²"]
)
def test_prompts_that_there_are_not_are_refused(text: str) -> None:
    with pytest.raises(ExportError, match="expected box, click, or clicks:N"):
        prompt_of(text)


def detections_of(run: Run, entries: list[Any]) -> Detections:
    (run.folder / "results.json").write_text(json.dumps(entries))
    return read_detections(run.folder / "results.json")


def test_ap_is_one_for_the_right_boxes_and_less_with_wrong_ones(run: Run) -> None:
    right = [
        {**{key: entry[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.5} for entry in run.annotations
    ]
    found = run.report(run(detections=detections_of(run, right)), detections_of(run, right))["average_precision"]
    assert found["ap"] == found["ap_50"] == pytest.approx(1)
    assert (found["photos"], found["detections"]) == (5, 5)

    wrong = [{**entry, "score": 0.9, "category_id": 1 + number % 2} for number, entry in enumerate(right)]
    run.annotations[4]["category_id"] = 2
    asked = detections_of(run, wrong)
    found = run.report(run(detections=asked, overwrite=True), asked)["average_precision"]
    # Category 1 has four objects of which two are found (1, 3 as 2, 2); category 2 has one, never found.
    assert found["ap"] == pytest.approx((0.5 + 0) / 2, abs=0.01)


def test_detections_on_photos_without_objects_count_against_a_detector(run: Run) -> None:
    entries = [
        {"image_id": n, "category_id": 1, "bbox": [0, 0, 50, 50], "score": 0.9 if n == 0 else 0.5} for n in range(5)
    ]
    run.annotations = run.annotations[1:]
    asked = detections_of(run, entries)
    dataset = read_dataset(
        run.images, write_coco(run.folder / "instances.json", run.annotations), frozenset(asked.of_photo)
    )
    with closing(Journal(run.folder / "ap.jsonl", run.heading)) as journal:
        measured = evaluate(subject_of(Brightness()), dataset, [], journal, Progress(), detections=asked)
    found = run.report(measured, asked, ())["average_precision"]
    assert found["photos"] == 5
    assert found["ap"] == pytest.approx(0.8, abs=0.01)  # the best score is a false alarm: precision 4 of 5


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no JSON"),
        ("{}", "has no list of detections"),
        ("[]", "has no list of detections"),
        ("[7]", "detection 0 has"),
        ('[{"image_id": 1}]', "detection 0 has no 'category_id'"),
        ('[{"image_id": 1, "category_id": 1, "score": 1, "bbox": [0, 0, 0, 0]}]', "a bbox of 0 x 0"),
        ('[{"image_id": 1, "category_id": 1, "score": NaN, "bbox": [0, 0, 1, 1]}]', "a score of nan"),
        ('[{"image_id": 1, "category_id": 1.5, "score": 1, "bbox": [0, 0, 1, 1]}]', "a category_id of 1.5"),
    ],
)
def test_what_are_no_detections_is_told(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ExportError, match=told):
        read_detections(tmp_path / "results.json")
