"""Train the demonstration weights on generated scenes, in phases, resumable at any step.

    python -m reference.training demonstrate --work DIR

1. `lookup`: encoder alone, against a direct look-up (`lookup.py`), crops of 224 and 448.
2. `joint`: the decoder starts as that look-up (`construct.py`, `earlier_masks.py`); points, boxes, two points, and a
   second round with the first answer as mask input, alone, with the same prompt or with a correcting point; crops of
   224 from small scenes and of 448 from full ones, the look-up's loss beside it.
3. `lookup again`, `joint again`: both once more, from the decoder that is there; nothing is constructed.
4. `full`: as `joint`, mostly at 1024, with BatchNorm frozen, at a low learning rate.
5. `rounds`: the decoder alone at 1024, every batch with a second round.

The marks of distance are balanced for full frames (`marks.py`) before the last two.

Batches are drawn by phase and step number and sums are repeatable, so a resumed run, with as many threads, equals the
uninterrupted one.
The weights delivered are an exponential average, buffers included.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reference.checkpoint import load_mobile_sam, save_checkpoint
from reference.mobile_sam import MobileSam
from reference.training.batches import PlaceBatch, place_batch
from reference.training.channels import prepare
from reference.training.construct import construct
from reference.training.decode import decode_crop
from reference.training.earlier_masks import fit_earlier_masks
from reference.training.lookup import LEVEL_TOKENS, LookUp
from reference.training.losses import mask_loss
from reference.training.marks import balance_marks
from reference.training.phases import PHASES, Feed, Phase
from reference.training.prompts import draw_prompts
from reference.training.rounds import decoder_losses
from reference.training.run_state import repeatable, write_checkpoint
from reference.training.scene_cache import SceneCache, open_cache, write_cache


class Trainer:
    """The state of a run: model, average, optimiser, phase and step."""

    def __init__(self, work: Path, run: str, phases: tuple[Phase, ...] = PHASES, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.work, self.folder, self.phases, self.seed = work, work / run, phases, seed
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sam = MobileSam()
        prepare(self.sam, seed)
        self.sam.image_encoder.to(memory_format=torch.channels_last)
        self.lookup = LookUp(self.sam)
        self.average = _float_state(self.sam)
        self.phase, self.step, self.constructed = 0, 0, False
        self.caches: dict[str, SceneCache] = {}
        self.optimiser = self._optimiser()

    def _optimiser(self) -> torch.optim.AdamW:
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.sam.named_parameters():
            groups.setdefault((name.startswith("image_encoder."), parameter.ndim > 1), []).append(parameter)
        return torch.optim.AdamW(
            [
                {"params": parameters, "encoder": encoder, "weight_decay": 0.02 if encoder and matrix else 0.0}
                for (encoder, matrix), parameters in groups.items()
            ],
            betas=(0.9, 0.98),
        )

    def cache(self, name: str) -> SceneCache:
        if name not in self.caches:
            self.caches[name] = open_cache(self.work / name)
        return self.caches[name]

    def run(self) -> None:
        """Train to the end of the last phase, saving as it goes."""
        saved = time.monotonic()
        recent: list[dict[str, float]] = []
        begun, done = time.monotonic(), 0
        while self.phase < len(self.phases):
            phase = self.phases[self.phase]
            if self.step == 0:
                self._begin(phase)
            while self.step < phase.steps:
                recent.append(self._train_step(phase))
                self.step, done = self.step + 1, done + 1
                if self.step % 25 == 0:
                    self._log(phase, recent, (time.monotonic() - begun) / done)
                    recent = []
                if time.monotonic() - saved > 150:
                    self.save()
                    saved = time.monotonic()
            self.phase, self.step = self.phase + 1, 0
            self.optimiser = self._optimiser()
            self.save()

    def _log(self, phase: Phase, recent: list[dict[str, float]], seconds: float) -> None:
        names = sorted({name for entry in recent for name in entry})
        means = {name: float(np.mean([entry[name] for entry in recent if name in entry])) for name in names}
        left = seconds * (phase.steps - self.step) / 60
        line = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(
            f"{phase.name} {self.step}/{phase.steps} {line} | {seconds:.2f} s a step, {left:.0f} min left", flush=True
        )
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"phase": phase.name, "step": self.step, **means}) + "\n")

    def _train_step(self, phase: Phase) -> dict[str, float]:
        feed = phase.feeds[self.step % len(phase.feeds)]
        rng = np.random.default_rng([self.seed, self.phase, self.step])
        self._set_rates(phase)
        self.sam.train()
        if phase.freeze_norm:
            for module in self.sam.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        if phase.freeze_encoder:
            self.sam.image_encoder.eval()
        batch = place_batch(self.cache(feed.cache), rng, feed.images, feed.places, feed.crop)
        with repeatable(batch.images.device):
            loss, figures = self._loss(phase, feed, batch, rng)
            if not math.isfinite(float(loss.detach())):
                raise FloatingPointError(
                    f"loss is {float(loss.detach())} at {phase.name} step {self.step}; the last good checkpoint is "
                    f"{self.folder / 'last.pt'}"
                )
            loss.backward()
            nn.utils.clip_grad_norm_(self.sam.parameters(), 1.0)
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self._update_average()
        return figures

    def _loss(
        self, phase: Phase, feed: Feed, batch: PlaceBatch, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        images = batch.images.contiguous(memory_format=torch.channels_last)
        figures: dict[str, float] = {}
        total = torch.zeros(())
        with torch.autocast("cpu", torch.bfloat16):
            with torch.set_grad_enabled(not phase.freeze_encoder):
                embeddings = self.sam.image_encoder(images)
            if phase.lookup_weight:
                logits = self.lookup.masks(embeddings, batch.places / (feed.crop / 2) - 1)
        if phase.lookup_weight:
            weight = torch.where(batch.on_thing, 1.0, 0.4)[:, None].expand(-1, len(LEVEL_TOKENS), -1)
            each = mask_loss(logits, batch.targets, phase.mask_loss)
            lookup_loss = (each * weight).sum() / weight.sum()
            figures["lookup"] = float(lookup_loss.detach())
            total = total + phase.lookup_weight * lookup_loss
        if feed.prompts:
            for loss, found in decoder_losses(self.sam, phase, feed, batch, embeddings, rng):
                total = total + loss
                figures |= found
        return total, figures

    def _set_rates(self, phase: Phase) -> None:
        done = self.step / max(phase.schedule_steps or phase.steps, 1)
        factor = phase.end + (phase.start - phase.end) * 0.5 * (1 + math.cos(math.pi * done))
        factor *= min(1.0, (self.step + 1) / phase.warm_up)
        for group in self.optimiser.param_groups:
            group["lr"] = factor * (phase.encoder_rate if group["encoder"] else phase.decoder_rate)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(0.998, (self.step + 1) / (self.step + 20)) if self.phase == 0 else 0.995
        state = self.sam.state_dict()
        for name, value in self.average.items():  # by name: buffers come in another order than parameters
            value.lerp_(state[name], 1 - decay)

    def _begin(self, phase: Phase) -> None:
        """What a phase does before its first step; it continues from the average where that changes weights."""
        constructs = phase.construct and not self.constructed
        if not constructs and not phase.balance_marks:
            return
        self.sam.load_state_dict({**self.sam.state_dict(), **self.average})
        self.sam.eval()
        if constructs:
            self._construct()
        if phase.balance_marks:
            factor = balance_marks(self.sam, self.cache(phase.feeds[0].cache))
            print(f"{phase.name}: marks of distance times {factor}", flush=True)
        self.average = _float_state(self.sam)

    @torch.no_grad()
    def _construct(self) -> None:
        """Write the decoder as a look-up."""
        feed = self.phases[0].feeds[0]
        rng = np.random.default_rng(1)
        batch = place_batch(self.cache(feed.cache), rng, 24, 1, feed.crop)
        embeddings = self.sam.image_encoder(batch.images)
        construct(self.sam, self.lookup.keys(embeddings).permute(0, 2, 3, 1).flatten(0, 2))
        prompts = draw_prompts(rng, batch.ids, batch.things, 4, two_points=False).prompts
        fit_earlier_masks(
            self.sam, decode_crop(self.sam, embeddings, prompts, (0, 0))[0][:, :, 0].flatten(0, 1)[:, None]
        )
        self.constructed = True

    def start_from(self, sam: MobileSam) -> None:
        """Take over weights that an earlier run has made, and keep their decoder instead of constructing one."""
        self.sam.load_state_dict(sam.state_dict())
        self.average = _float_state(self.sam)
        self.constructed = True

    def averaged(self) -> MobileSam:
        """A model with the averaged weights, in eval mode."""
        sam = MobileSam()
        sam.load_state_dict({**self.sam.state_dict(), **self.average})
        return sam.eval()

    def save(self) -> None:
        """Write `last.pt`, whole or not at all."""
        state = {
            "model": self.sam.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "phase": self.phase,
            "step": self.step,
            "constructed": self.constructed,
            "seed": self.seed,
            "phases": [asdict(phase) for phase in self.phases],
        }
        write_checkpoint(self.folder / "last.pt", state)

    def resume(self) -> None:
        """Continue from `last.pt` if there is one.

        Raises:
            ValueError: it is of other phases.
        """
        path = self.folder / "last.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["phases"] != [asdict(phase) for phase in self.phases]:
            raise ValueError(f"{path} was trained in other phases than phases.py has now; give another --name")
        self.sam.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.phase, self.step, self.constructed = state["phase"], state["step"], state["constructed"]


def _float_state(sam: MobileSam) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in sam.state_dict().items() if value.is_floating_point()}


def demonstrate(work: Path, name: str = "demonstration", start: str | None = None) -> Path:
    """Paint what is missing, train through all phases (or on from where it stopped), and write the weights.

    Args:
        work: Folder for scene caches and checkpoints.
        name: Of the run, a folder in `work`.
        start: Checkpoint of an earlier run, such as "demo", whose weights go through all phases once more.

    Returns:
        The float16 safetensors file.
    """
    earlier = load_mobile_sam(start) if start is not None else None
    for folder, count, size, first in (("scenes224", 16_000, 224, 0), ("scenes1024", 1676, 1024, 10_000_000)):
        if not (work / folder / "cache.json").exists():
            print(f"painting {count} scenes of {size} pixels", flush=True)
            write_cache(work / folder, count, size, first=first, workers=os.cpu_count() or 1)
    trainer = Trainer(work, name)
    if earlier is not None:
        trainer.start_from(earlier)
    trainer.resume()
    trainer.run()
    path = trainer.folder / "mobile_sam_demo.safetensors"
    save_checkpoint(trainer.averaged(), path, torch.float16)
    return path
