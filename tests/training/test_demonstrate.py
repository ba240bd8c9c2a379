"""The demonstration's trainer, in miniature: all phases, and a resumed run equals the uninterrupted one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from reference.checkpoint import stand_in_mobile_sam
from reference.prompt_encoder import BOX_TOP_LEFT, FOREGROUND_LABEL, PADDING_LABEL
from reference.training.batches import place_batch
from reference.training.demonstrate import Trainer
from reference.training.phases import Feed, Phase
from reference.training.prompts import draw_prompts
from reference.training.scene_cache import SceneCache, write_cache

PHASES = (
    Phase("lookup", (Feed("scenes", 64, 2, 4),), 2, 1e-3, 1e-3, warm_up=1),
    Phase(
        "joint",
        (Feed("scenes", 64, 2, 4, 3), Feed("scenes", 32, 1, 2, 2)),
        3,
        1e-3,
        1e-3,
        mask_loss="plain",
        construct=True,
    ),
    Phase(
        "full", (Feed("scenes", 64, 1, 4, 2),), 1, 1e-4, 1e-4, lookup_weight=0.0, mask_loss="focal", freeze_norm=True
    ),
    Phase(
        "rounds",
        (Feed("scenes", 64, 1, 1, 2),),
        2,
        0.0,
        1e-4,
        lookup_weight=0.0,
        mask_loss="plain",
        freeze_encoder=True,
        second_rounds=1.0,
        balance_marks=True,
    ),
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_cache(folder / "scenes", 6, image_size=64)
    return folder


def test_a_run_killed_in_any_phase_and_resumed_equals_the_uninterrupted_one(work: Path) -> None:
    whole = Trainer(work, "whole", PHASES)
    whole.run()
    for kill_after in ((0, 1), (1, 2), (3, 1)):  # phase and step
        trainer = Trainer(work, "parts", PHASES)
        trainer.resume()
        while (trainer.phase, trainer.step) != kill_after:
            if trainer.step == PHASES[trainer.phase].steps:
                trainer.phase, trainer.step, trainer.optimiser = trainer.phase + 1, 0, trainer._optimiser()
            if trainer.step == 0:
                trainer._begin(PHASES[trainer.phase])
            trainer._train_step(PHASES[trainer.phase])
            trainer.step += 1
        trainer.save()
    last = Trainer(work, "parts", PHASES)
    last.resume()
    last.run()
    assert last.average.keys() == whole.average.keys()
    assert all(torch.equal(last.average[name], whole.average[name]) for name in whole.average)


def test_a_run_started_from_weights_keeps_their_decoder(work: Path) -> None:
    sam = stand_in_mobile_sam(1024)
    with torch.no_grad():
        sam.mask_decoder.iou_token.weight[0, 0] = 7.0  # nothing that a construction or three steps would come up with
    trainer = Trainer(work, "started", PHASES)
    trainer.start_from(sam)
    trainer.save()
    again = Trainer(work, "started", PHASES)
    again.resume()
    again.run()
    state = again.averaged().state_dict()
    assert float(state["mask_decoder.iou_token.weight"][0, 0]) == pytest.approx(7.0, abs=0.05)  # six steps of 1e-3
    silent = state["mask_decoder.transformer.layers.1.self_attn.out_proj.weight"]
    assert silent.abs().max() > 0.01, "the decoder was constructed anew: this projection starts at zero there"


def test_prompts_mean_the_mask_that_they_were_made_from(work: Path) -> None:
    cache = SceneCache(**{name: np.load(work / "scenes" / f"{name}.npy") for name in ("images", "ids", "things")})
    rng = np.random.default_rng(0)
    batch = place_batch(cache, rng, 4, places=6, crop=64)
    for at in range(6):
        for n in range(4):
            x, y = (int(v) // 4 for v in batch.places[n, at])
            assert batch.targets[n, :, at, y, x].all(), "a place lies outside its own mask"
    for two_points in (False, True):
        drawn = draw_prompts(rng, batch.ids, batch.things, 8, two_points)
        assert torch.equal(drawn.answers[:, :, 0], drawn.meant)
        for n, p in np.ndindex(4, 8):
            coords, labels, mask = drawn.prompts.coords[n, p], drawn.prompts.labels[n, p].tolist(), drawn.meant[n, p]
            if labels[0] == FOREGROUND_LABEL:
                x, y = ((coords[0] + 0.5) // 4).int().tolist()
                assert mask[y, x], "a click lies outside what it means"
            lone = labels == [FOREGROUND_LABEL, PADDING_LABEL]
            same = all(torch.equal(answer, mask) for answer in drawn.answers[n, p])
            assert lone or same, "only a lone click may have several answers"
            if BOX_TOP_LEFT in labels:
                at = labels.index(BOX_TOP_LEFT)
                assert (coords[at + 1] > coords[at]).all()


def test_a_loss_that_is_not_a_number_stops_the_run(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(work, "broken", PHASES)
    monkeypatch.setattr(
        "reference.training.demonstrate.mask_loss", lambda logits, target, kind: logits.sum((-1, -2)) * float("nan")
    )
    with pytest.raises(
        FloatingPointError, match=r"loss is nan at lookup step 0; the last good checkpoint is .*last\.pt"
    ):
        trainer.run()
