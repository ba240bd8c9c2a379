"""The second stage and the comparison with the teacher."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reference.checkpoint_file import read_state
from reference.training.distillation.coco import annotations_by_photo
from reference.training.distillation.evaluate import EvaluateConfig, evaluate, tight_boxes
from reference.training.distillation.finetune import FinetuneConfig, finetune, first_prompts, round_loss
from reference.training.distillation.image_source import Skipped, read_source
from reference.training.distillation.prompts import correct
from reference.training.scenes.scenes_to_coco import write_coco


@pytest.fixture()
def config(teacher_path: Path, sa1b_folder: Path, tmp_path: Path) -> FinetuneConfig:
    return FinetuneConfig(
        str(teacher_path), sa1b_folder, tmp_path / "out", image_size=64, steps=4, masks=3, precision="no", save_every=1
    )


def test_a_killed_and_resumed_finetuning_equals_the_uninterrupted_one(config: FinetuneConfig, tmp_path: Path) -> None:
    whole = finetune(replace(config, out=tmp_path / "whole"))
    finetune(replace(config, out=tmp_path / "parts", stop_after=2))
    parts = finetune(replace(config, out=tmp_path / "parts"))
    first, second = read_state(whole)[0], read_state(parts)[0]
    assert all(torch.equal(first[name], second[name]) for name in first)
    before = read_state(config.student)[0]
    changed = {name for name in first if not torch.equal(first[name], before[name])}
    assert any(name.startswith("mask_decoder.") for name in changed)
    assert not any(name.startswith("image_encoder.") for name in changed), "the encoder is to stay frozen"
    losses = [float(row["loss"]) for row in csv.DictReader((tmp_path / "whole/losses.csv").open())]
    assert len(losses) == 4 and losses[-1] < losses[0]


def test_images_without_masks_are_refused(config: FinetuneConfig, sa1b_folder: Path, tmp_path: Path) -> None:
    from reference.training.pixels import to_jpeg

    (tmp_path / "a.jpg").write_bytes(to_jpeg(np.zeros((40, 50, 3), np.uint8)))
    (tmp_path / "a.json").write_text(json.dumps({"annotations": []}))
    with pytest.raises(ValueError, match=r"no image in .* has masks in SA-1B's format beside it"):
        finetune(replace(config, data=tmp_path))


@pytest.fixture(scope="module")
def coco_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    write_coco(folder, 5, 64, "train")
    return folder


def test_cocos_document_teaches_what_the_same_annotations_beside_each_photo_teach(
    config: FinetuneConfig, coco_folder: Path, tmp_path: Path
) -> None:
    document = json.loads((coco_folder / "instances.json").read_text())
    beside = tmp_path / "beside"
    shutil.copytree(coco_folder / "images", beside)
    for photo in document["images"]:
        mine = [entry for entry in document["annotations"] if entry["image_id"] == photo["id"]]
        (beside / photo["file_name"]).with_suffix(".json").write_text(json.dumps({"annotations": mine}))
    from_coco = finetune(replace(config, data=coco_folder / "images", annotations=coco_folder / "instances.json"))
    from_json = finetune(replace(config, data=beside, out=tmp_path / "other"))
    assert from_coco.read_bytes() == from_json.read_bytes()
    assert not same(from_coco, Path(config.student))


def same(one: Path, other: Path) -> bool:
    first, second = read_state(one)[0], read_state(other)[0]
    return all(torch.equal(first[name], second[name]) for name in second)


def test_photos_without_annotations_are_passed_over_and_unlisted_ones_named(coco_folder: Path, tmp_path: Path) -> None:
    document = json.loads((coco_folder / "instances.json").read_text())
    names = [photo["file_name"] for photo in document["images"]]
    for entry in document["annotations"]:
        entry["iscrowd"] = int(entry["image_id"] == 1)
    document["images"] = [{**photo, "file_name": f"train/{photo['file_name']}"} for photo in document["images"][:4]]
    (tmp_path / "instances.json").write_text(json.dumps(document))
    skipped = Skipped()
    listed = annotations_by_photo(tmp_path / "instances.json")
    assert list(listed) == names[:4]
    found = [record.key for record in read_source(coco_folder / "images", skipped, listed=listed)]
    assert found == [Path(name).stem for name in (names[0], names[2], names[3])]
    assert skipped.names == {f"images/{Path(names[4]).stem}": "not listed in the document of annotations"}
    assert skipped.read == 4


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("[", "is no JSON"),
        ('{"images": []}', "no lists of images and annotations"),
        ("[]", "no lists of images and annotations"),
        ('{"images": [{"id": 1}], "annotations": []}', "image 0 has no file_name and id"),
        ('{"images": [3], "annotations": []}', "image 0 has no file_name and id"),
        (
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "x/a"}], "annotations": []}',
            "'a' or its id",
        ),
    ],
)
def test_what_is_no_document_of_cocos_has_a_reason(document: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_text(document)
    with pytest.raises(ValueError, match=reason) as caught:
        annotations_by_photo(tmp_path / "instances.json")
    assert "\n" not in str(caught.value)


def test_cocos_document_does_not_go_with_tar_files(config: FinetuneConfig, coco_folder: Path) -> None:
    with pytest.raises(ValueError, match="--annotations goes with a folder of photos"):
        finetune(replace(config, annotations=coco_folder / "instances.json"))


def test_a_lone_click_trains_the_best_of_three_and_a_box_trains_all() -> None:
    truth = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    truth[..., :4] = True
    right, wrong = torch.where(truth[0, 0], 9.0, -9.0), torch.where(truth[0, 0], -9.0, 9.0)
    masks, quality = torch.stack([right, wrong, right, wrong])[None, None], torch.tensor([[[1.0, 0.0, 1.0, 0.0]]])
    assert float(round_loss(masks, quality, truth, torch.tensor([[True]]))) < 0.01
    assert float(round_loss(masks, quality, truth, torch.tensor([[False]]))) > 1


def test_a_correction_lands_where_the_answer_was_wrong() -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 16, 16), bool)
    masks[:, 4:12, 4:12] = True
    prompts = first_prompts(rng, masks)
    logits = torch.full((1, 2, 16, 16), -5.0)
    logits[0, 1] = 5.0  # the first misses everything, the second finds everything
    again = correct(rng, prompts, logits, torch.from_numpy(masks)[None])
    assert again.labels[0, :, 0].tolist() == [1, 0]
    inside = ((again.coords[0, :, 0] > 15) & (again.coords[0, :, 0] < 48)).all(-1)
    assert inside.tolist() == [True, False]
    assert torch.equal(again.coords[:, :, 1:], prompts.coords)


def test_a_teacher_agrees_with_itself_and_not_with_other_weights(
    teacher_path: Path, sa1b_folder: Path, tmp_path: Path
) -> None:
    from reference.checkpoint import save_checkpoint, stand_in_mobile_sam

    config = EvaluateConfig(str(teacher_path), str(teacher_path), sa1b_folder, image_size=64, prompts=4, limit=5)
    same = evaluate(config)
    assert same["photos"] == 5 and same["prompts"] + same["empty_teacher_masks"] == 20
    # Two passes of the same float32 weights; a pixel at the threshold may flip.
    assert same["point_miou"] > 0.999 and same["box_miou"] > 0.999
    save_checkpoint(stand_in_mobile_sam(64, seed=7), tmp_path / "other.safetensors")
    other = evaluate(replace(config, student=str(tmp_path / "other.safetensors")))
    assert other["point_miou"] < 0.9


def test_tight_boxes_hold_the_first_and_last_pixels() -> None:
    mask = torch.zeros(1, 6, 8, dtype=torch.bool)
    mask[0, 2, 3] = mask[0, 4, 6] = True
    assert tight_boxes(mask).tolist() == [[3, 2, 6, 4]]
