"""The demonstration weights' trainer: prompts mean what they say, steps repeat, a killed run goes on unharmed."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from reference.checkpoint import stand_in_mobile_sam
from reference.training.demo_weights.attention import attention_loss, logit_penalty
from reference.training.demo_weights.feeding import Batch, batches
from reference.training.demo_weights.phases import PHASES, Feed, Phase
from reference.training.demo_weights.prompting import ask, corrected, places_of, tight_boxes
from reference.training.demo_weights.trainer import Trainer, positional_frequencies
from reference.training.scenes.scene_cache import MASK_STRIDE, SceneCache, write_cache
from reference.values import BACKGROUND_LABEL, BOX_TOP_LEFT, FOREGROUND_LABEL, PADDING_LABEL

CPU = torch.device("cpu")
FEED = Feed(64, 64, images=2, prompts=2, places=3)
TINY = (
    Phase("lookup", (Feed(64, 64, images=2, places=3),), 2, 1e-3, 1e-3, lookup_weight=1.0),
    Phase("all", (FEED, dataclasses.replace(FEED, own_frame=True)), 3, 1e-3, 1e-3, attention_weight=0.1, rounds=3),
    Phase("settle", (FEED,), 1, 1e-4, 1e-4, freeze_norm=True),
    Phase("again", (FEED,), 1, 1e-4, 1e-4, restart=True),
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> SceneCache:
    return write_cache(tmp_path_factory.mktemp("scenes") / "leaves", 6, 64)


@pytest.fixture
def batch() -> Batch:
    """One crop of 16x16 mask pixels: background 0, 20 of two parts (object 1), 28 of one (object 2)."""
    ids = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    ids[0, 0, 2:7, 2:6], ids[0, 0, 2:7, 4:6] = 1, 2
    ids[0, 1, 2:7, 2:6] = 1
    ids[0, 2, 2:7, 2:6] = 1
    ids[0, :, 10:14, 8:15] = torch.tensor([3, 2, 2]).view(3, 1, 1)
    return Batch(torch.zeros(1, 3, 64, 64), ids, torch.tensor([1]))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_places_fall_evenly_on_objects_whatever_their_size(batch: Batch) -> None:
    flat = places_of(batch, 4000, generator())
    objects = batch.ids[0, 1].flatten()[flat[0]]
    share = [float((objects == k).float().mean()) for k in (0, 1, 2)]
    # a tenth falls evenly on pixels: 0.81, 0.08 and 0.11 of those on ground and objects; the rest halves
    assert share == pytest.approx([0.081, 0.458, 0.461], abs=0.03)


def test_a_lone_click_asks_for_part_object_and_group_and_lies_in_what_is_meant(batch: Batch) -> None:
    asked = ask(batch, 64, False, generator())
    labels = asked.prompts.labels[0]
    for p in torch.nonzero(labels[:, 0] == FOREGROUND_LABEL).flatten().tolist():
        x, y = ((asked.prompts.coords[0, p, 0] + 0.5) // MASK_STRIDE).long().tolist()
        names = batch.ids[0, :, y, x]
        for token, level in ((1, 0), (2, 1), (3, 2)):
            assert torch.equal(asked.answers[0, p, token], batch.ids[0, level] == names[level])
        assert bool(asked.meant[0, p, y, x])
        assert int(labels[p, 1]) == PADDING_LABEL
        assert torch.equal(asked.wanted[0, p], batch.ids[0, 1] == names[1])


def test_a_box_is_tight_or_moved_a_little_and_all_tokens_answer_what_is_meant(batch: Batch) -> None:
    asked = ask(batch, 200, False, generator(1))
    boxes = torch.nonzero(asked.prompts.labels[0, :, 0] == BOX_TOP_LEFT).flatten()
    assert len(boxes) > 60
    tight = tight_boxes(asked.meant)[0, boxes]
    given = asked.prompts.coords[0, boxes].flatten(1)
    exact = (given == tight).all(1)
    assert 0.55 < float(exact.float().mean()) < 0.85  # 70 % of a fair draw of about a hundred
    side = (tight[:, 2:] - tight[:, :2]).repeat(1, 2)
    assert float(((given - tight).abs() / side).max()) < 0.25  # five deviations
    assert torch.equal(asked.answers[0, boxes], asked.meant[0, boxes][:, None].expand(-1, 4, -1, -1))
    assert torch.equal(asked.wanted[0, boxes], asked.meant[0, boxes])


def test_tight_boxes_are_those_of_the_pixels_that_mask_pixels_cover() -> None:
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[0, 0, 2:5, 1:7] = True
    assert tight_boxes(mask).tolist() == [[[4.0, 8.0, 27.0, 19.0]]]


def test_a_correction_is_foreground_where_the_answer_missed_and_background_where_it_took_too_much(batch: Batch) -> None:
    asked = ask(batch, 8, False, generator(2))
    nothing = torch.full(asked.meant.shape, -1.0)
    everything = torch.full(asked.meant.shape, 1.0)
    missed = corrected(asked, asked.prompts, nothing, generator(3))
    assert missed.labels[..., 0].eq(FOREGROUND_LABEL).all()
    assert missed.labels.shape[2] == asked.prompts.labels.shape[2] + 1
    excess = corrected(asked, asked.prompts, everything, generator(3))
    assert excess.labels[..., 0].eq(BACKGROUND_LABEL).all()
    at = ((excess.coords[0, :, 0] + 0.5) // MASK_STRIDE).long()
    assert not asked.meant[0, torch.arange(8), at[:, 1], at[:, 0]].any()


def test_attention_on_the_object_costs_nothing_and_elsewhere_much(batch: Batch) -> None:
    asked = ask(batch, 3, False, generator(4))
    logits = torch.zeros(3, 8, 7, 16)
    cells = torch.nn.functional.avg_pool2d(asked.meant[0].float()[:, None], 4).flatten(1)
    meant = asked.meant[:, :, None].expand(-1, -1, 4, -1, -1)
    on = attention_loss([logits + 100 * (cells == cells.amax(1, keepdim=True))[:, None, None]], meant, asked.meant)
    off = attention_loss([logits + 100 * (cells == 0)[:, None, None]], meant, asked.meant)
    assert float(on) < 2 < 4 < float(off)  # -log of a quarter cell at least; -log(0.001) is 6.9, less on the ground


def test_ordinary_attention_logits_are_free_and_large_ones_cost() -> None:
    assert float(logit_penalty([torch.randn(2, 8, 7, 16)])) == 0
    assert float(logit_penalty([100 * torch.randn(2, 8, 7, 16)])) > 100


def test_positional_frequencies_are_exact_in_float16_and_spread_over_scales() -> None:
    matrix = positional_frequencies(generator())
    assert torch.equal(matrix, matrix.half().float())
    length = matrix.norm(dim=0)
    assert float(length.min()) == pytest.approx(0.35, rel=0.01)
    assert float(length.max()) == pytest.approx(5.0, rel=0.01)


def test_pixels_are_normalised_as_the_model_does_it(monkeypatch: pytest.MonkeyPatch, cache: SceneCache) -> None:
    """What the trainer feeds is what `normalise_and_pad` of the trained model makes of the same pixels."""
    monkeypatch.setattr("reference.training.demo_weights.feeding.normalise", lambda images: images)
    feed = Feed(64, 64, images=4)
    raw = next(batches(iter([(feed, [cache, cache], (0, 0, 5))]), CPU)).images
    monkeypatch.undo()
    fed = next(batches(iter([(feed, [cache, cache], (0, 0, 5))]), CPU)).images
    assert float(raw.max()) > 100
    assert torch.equal(fed, stand_in_mobile_sam(64).normalise_and_pad(raw))


def test_a_batch_is_padded_with_zeros_and_background_where_the_photo_ends(cache: SceneCache) -> None:
    feed = Feed(64, 64, images=8, own_frame=True)
    batch = next(batches(iter([(feed, [cache, cache], (0, 0, 5))]), CPU))
    padded = [i for i in range(8) if (batch.images[i, :, -4:] == 0).all() or (batch.images[i, :, :, -4:] == 0).all()]
    assert padded and len(padded) < 8
    for i in padded:
        empty = (batch.images[i] == 0).all(0)[2::4, 2::4]
        assert (batch.ids[i][:, empty] == 0).all()


def run(folder: Path, cache: SceneCache, phases: tuple[Phase, ...] = TINY) -> Trainer:
    torch.use_deterministic_algorithms(True)
    try:
        trainer = Trainer(folder, {64: (cache, cache)}, phases, CPU)
        trainer.resume()
        trainer.run()
    finally:
        torch.use_deterministic_algorithms(False)
    return trainer


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path, cache: SceneCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", cache).averaged().state_dict()
    step = Trainer._train_step

    def dies(self: Trainer, *arguments: object) -> object:
        if (self.phase, self.step) == (1, 1):
            self.save()
            raise KeyboardInterrupt
        return step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", cache)
    monkeypatch.undo()
    resumed = run(tmp_path / "killed", cache).averaged().state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
    started = Trainer(tmp_path / "new", {64: (cache, cache)}, TINY, CPU).averaged().state_dict()
    changed = sum(not torch.equal(whole[name], started[name]) for name in whole)
    assert changed > 0.9 * len(whole) - 40  # all but the fixed buffers and what these phases do not reach


def test_other_phases_than_the_checkpoints_are_refused(tmp_path: Path, cache: SceneCache) -> None:
    Trainer(tmp_path, {64: (cache, cache)}, TINY, CPU).save()
    with pytest.raises(ValueError, match="other phases"):
        Trainer(tmp_path, {64: (cache, cache)}, TINY[:1], CPU).resume()


def test_a_damaged_checkpoint_is_one_line_that_names_the_one_before_it(tmp_path: Path, cache: SceneCache) -> None:
    trainer = Trainer(tmp_path, {64: (cache, cache)}, TINY, CPU)
    trainer.save()
    trainer.save()
    path = tmp_path / "last.pt"
    whole, state = path.read_bytes(), torch.load(path, weights_only=True)
    first = next(iter(state["average"]))

    def written(**changes: object) -> bytes:
        torch.save({**state, **changes}, buffer := io.BytesIO())
        return buffer.getvalue()

    damages = {
        whole[: len(whole) // 2]: "",
        b"": "",
        written(step="3"): "expected model, optimiser, config, step, average, phase in it",
        written(phase=5): "phase 5, step 0",
        written(average={}): "the average is not of this model",
        written(average={**state["average"], first: state["average"][first] * float("inf")}): f"{first} is not finite",
        written(model={}): "Missing key",
        written(optimiser={"param_groups": []}): "",
    }
    for data, reason in damages.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"last\.pt is damaged .*; rename last\.pt\.old to last\.pt") as caught:
            Trainer(tmp_path, {64: (cache, cache)}, TINY, CPU).resume()
        assert reason in str(caught.value) and "\n" not in str(caught.value)


def test_another_seed_than_the_checkpoints_is_refused(tmp_path: Path, cache: SceneCache) -> None:
    Trainer(tmp_path, {64: (cache, cache)}, TINY, CPU).save()
    with pytest.raises(ValueError, match="another seed"):
        Trainer(tmp_path, {64: (cache, cache)}, TINY, CPU, seed=1).resume()


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(
    tmp_path: Path, cache: SceneCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "reference.training.demo_weights.trainer.mask_loss",
        lambda logits, target, kind: logits.sum((-1, -2)) * float("nan"),
    )
    with pytest.raises(FloatingPointError, match="last good checkpoint"):
        run(tmp_path, cache)
    assert not (tmp_path / "last.pt").exists()


def test_the_phases_that_made_the_weights_feed_on_scenes_that_are_painted() -> None:
    from reference.training.demo_weights.painting import SUPPLIES

    sizes = {supply.size for supply in SUPPLIES}
    for phase in PHASES:
        for feed in phase.feeds:
            assert feed.size in sizes and feed.crop <= feed.size and feed.crop % 32 == 0
    assert np.sum([phase.steps for phase in PHASES]) == 5390
