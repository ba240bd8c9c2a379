"""Prompts in the loop: the next point falls where student and teacher disagree, and the student learns their masks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reference.checkpoint import load_mobile_sam, save_checkpoint, stand_in_mobile_sam
from reference.training.decode import CropPrompts, decode_crop
from reference.training.distillation.evaluate import EvaluateConfig, evaluate
from reference.training.distillation.finetune import FinetuneConfig, finetune
from reference.training.distillation.prompts_in_the_loop import ask_where_they_disagree, judge_of, loop_loss
from reference.training.distillation.teacher import load_teacher
from reference.training.losses import balanced_cross_entropy, dice_loss


def test_the_next_point_falls_where_they_disagree_and_the_teacher_labels_it() -> None:
    truth = torch.zeros(1, 4, 16, 16, dtype=torch.bool)
    truth[:, :3, 4:12, 4:12] = True
    found = truth.clone()
    found[0, 0, 4:12, 4:8] = False  # missed the left half
    found[0, 1, :, 14:] = True  # found a strip that is none
    prompts = CropPrompts(torch.full((1, 4, 2, 2), 7.0), torch.ones(1, 4, 2, dtype=torch.long))
    seen: list[set[tuple[int, int, int]]] = [set() for _ in range(4)]
    for seed in range(40):
        asked = ask_where_they_disagree(np.random.default_rng(seed), prompts, found, truth)
        assert torch.equal(asked.coords[:, :, 1:], prompts.coords) and torch.equal(
            asked.labels[:, :, 1:], prompts.labels
        )
        for p in range(4):
            x, y = ((asked.coords[0, p, 0] + 0.5) // 4).int().tolist()
            seen[p].add((x, y, int(asked.labels[0, p, 0])))
    assert all(4 <= x < 8 and 4 <= y < 12 and label == 1 for x, y, label in seen[0])
    assert all(x >= 14 and label == 0 for x, y, label in seen[1])
    assert all(4 <= x < 12 and 4 <= y < 12 and label == 1 for x, y, label in seen[2]), "agreed: into the mask"
    assert all(label == 0 for _, _, label in seen[3]), "agreed on nothing: anywhere"
    assert all(len(places) > 10 for places in seen), "places are drawn, not fixed"


def test_the_loss_is_of_all_four_masks_and_qualities_where_the_picture_is_shown(teacher_path: Path) -> None:
    teacher = load_teacher(str(teacher_path), 64)
    student, judge = load_mobile_sam(teacher_path, 64), judge_of(teacher)
    theirs = teacher.embed(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    ours = theirs + 0.3
    prompts = CropPrompts(torch.tensor([[[[20.0, 20.0], [0.0, 0.0]]]]), torch.tensor([[[1, -1]]]))

    def loss(embedding: torch.Tensor, shown: tuple[int, int], rounds: int) -> torch.Tensor:
        return loop_loss(student, judge, (embedding, theirs), prompts, shown, rounds, np.random.default_rng(0))

    with torch.inference_mode():
        masks, quality = decode_crop(student, ours, prompts, (0, 0))
        wanted, wanted_quality = decode_crop(judge, theirs, prompts, (0, 0))
        assert torch.equal(decode_crop(student, theirs, prompts, (0, 0))[0], wanted), "the same decoder"
        found, truth = masks[..., :10, :16], wanted[..., :10, :16] > 0
        expected = (balanced_cross_entropy(found, truth) + dice_loss(found, truth)).mean()
        expected += (quality - wanted_quality).square().mean()
        torch.testing.assert_close(loss(ours, (10, 16), 1), expected)
        assert loss(ours, (16, 16), 1) != expected
        assert loss(theirs, (10, 16), 3) < loss(ours, (10, 16), 3)


def test_a_crop_without_offset_is_decoded_as_the_model_decodes_at_every_size(teacher_path: Path) -> None:
    """What is trained must be what is used, also where the model frame is not 1024."""
    for size in (64, 96):
        sam = load_mobile_sam(teacher_path, size)
        embedding = torch.randn(1, 256, size // 16, size // 16, generator=torch.Generator().manual_seed(0))
        coords, labels = torch.tensor([[[20.0, 31.0], [50.0, 7.0], [0.0, 0.0]]]), torch.tensor([[1, 0, -1]])
        with torch.inference_mode():
            expected = sam.predict_masks(embedding, (coords[:, :2], labels[:, :2].float()))
            found = decode_crop(sam, embedding, CropPrompts(coords[None], labels[None]), (0, 0))
        for got, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(got[0], wanted, rtol=1e-4, atol=1e-4)  # float32, other order of sums


@pytest.fixture(scope="module")
def config(sa1b_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneConfig:
    """A student whose encoder is off its teacher's by so much that a dozen steps of Adam bring it closer."""
    folder = tmp_path_factory.mktemp("student")
    sam = stand_in_mobile_sam(64)
    last = sam.mask_decoder.iou_prediction_head.layers[-1]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        last.weight *= 0.01  # stand-in weights predict IoUs of -40 to 15; a teacher's are near 0 to 1
        last.bias.fill_(0.7)
        save_checkpoint(sam, folder / "teacher.safetensors")
        for weight in sam.image_encoder.parameters():
            weight += 0.4 * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)
    save_checkpoint(sam, folder / "student.safetensors")
    return FinetuneConfig(
        str(folder / "student.safetensors"), sa1b_folder, folder / "out", image_size=64, steps=12, masks=4, rounds=2,
        learning_rate=1e-3, train_encoder=True, prompts_in_the_loop=True, teacher=str(folder / "teacher.safetensors"),
        precision="no", save_every=4,
    )  # fmt: skip


def test_a_student_comes_closer_to_its_teacher_and_a_killed_run_goes_on(config: FinetuneConfig, tmp_path: Path) -> None:
    finished = finetune(replace(config, out=tmp_path / "whole"))
    judged = EvaluateConfig(str(config.teacher), config.student, config.data, image_size=64, prompts=8, limit=11)
    before, after = evaluate(judged), evaluate(replace(judged, student=str(finished)))
    for kind in ("point_miou", "box_miou"):  # 16 steps: 0.67 to 0.74 and 0.66 to 0.77
        assert after[kind] > before[kind] + 0.02
    for stop in (4, None):
        parts = finetune(replace(config, out=tmp_path / "parts", stop_after=stop))
    first, second = load_mobile_sam(finished, 64).state_dict(), load_mobile_sam(parts, 64).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_options_that_do_not_fit_are_refused_before_any_work(config: FinetuneConfig, tmp_path: Path) -> None:
    for changes in ({"teacher": None}, {"prompts_in_the_loop": False}):
        with pytest.raises(ValueError, match="--prompts-in-the-loop and --teacher go together"):
            finetune(replace(config, out=tmp_path, **changes))  # type: ignore[arg-type]
    save_checkpoint(stand_in_mobile_sam(64, seed=3), tmp_path / "other.safetensors")
    out = tmp_path / "out"
    finetune(replace(config, out=out, steps=2, save_every=1, stop_after=1))
    with pytest.raises(ValueError, match="was trained with taught_by = "):
        finetune(replace(config, out=out, steps=2, teacher=str(tmp_path / "other.safetensors")))
    with pytest.raises(ValueError, match="was trained with taught_by = "):
        finetune(replace(config, out=out, steps=2, teacher=None, prompts_in_the_loop=False))
