"""Train the demonstration weights through all phases, resumable at any step.

Everything random in a step follows from the seed, the phase and the step number, and sums are repeatable on a given
device, so a resumed run equals the uninterrupted one. The weights delivered are an exponential average.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.layers.drop import DropPath
from timm.models.tiny_vit import Attention as TimmAttention
from torch import Tensor, nn

from reference.mobile_sam import MobileSam
from reference.training.decode import decode_crop
from reference.training.demo_weights.attention import attention_loss, logit_penalty, recorded_logits
from reference.training.demo_weights.feeding import Batch, batches
from reference.training.demo_weights.lookup import looked_up_masks
from reference.training.demo_weights.phases import Feed, Phase
from reference.training.demo_weights.prompting import ask, coordinates, corrected, places_of, without_points
from reference.training.losses import mask_iou, mask_loss
from reference.training.run_state import damaged, read_checkpoint, restore, write_checkpoint
from reference.training.scenes.scene_cache import SceneCache

FRAME = 1024
THREE_TOKENS = 0.25  # share of batches with three tokens a prompt
MASK_ONLY, REPEATED = 0.05, 0.15  # shares of later rounds without, and with the same prompt; the rest is corrected
CHOSEN = 0.6  # share of second rounds that are given the best of tokens 1 to 3 as mask input; the rest get token 0
TOKEN_WEIGHTS = (1.0, 0.6, 1.8, 0.6)  # of the mask losses: what is meant, part, object, group
PENALTY_EVERY = 4  # steps between looks at the attention logits
AVERAGE_STEPS = 400  # the average looks back so many steps
SAVE_SECONDS = 150
SCALES = (0.35, 5.0)  # of the positional frequencies, in periods per half frame: from a half frame to two cells
WEIGHT_DECAY = 0.05  # on matrices; keeps their numbers ordinary


def positional_frequencies(generator: torch.Generator) -> Tensor:
    """A (2, 128) matrix of directions at random and lengths spread evenly over their logarithm, exact in float16.

    SAM draws from one normal distribution. A spread of scales lets one attention row be sharp and another reach far
    from the first step on.
    """
    angle = torch.rand(128, generator=generator) * 2 * math.pi
    low, high = (math.log(scale) for scale in SCALES)
    length = torch.exp(torch.linspace(low, high, 128))
    return (torch.stack([angle.cos(), angle.sin()]) * length).half().float()


class Trainer:
    """The state of a run: model, average, optimiser, phase and step.

    Args:
        folder: where `last.pt` and `log.jsonl` go.
        caches: the scene caches of one size, one a family.
        phases: what to do.
        device: to train on.
        seed: of everything random.
    """

    def __init__(
        self,
        folder: Path,
        caches: Mapping[int, Sequence[SceneCache]],
        phases: tuple[Phase, ...],
        device: torch.device,
        seed: int = 0,
    ) -> None:
        torch.manual_seed(seed)
        self.folder, self.caches, self.phases, self.device, self.seed = folder, caches, phases, device, seed
        folder.mkdir(parents=True, exist_ok=True)
        self.sam = MobileSam()
        matrix = self.sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        matrix.copy_(positional_frequencies(torch.Generator().manual_seed(seed)))
        self.sam.to(device)
        self.sam.image_encoder.to(memory_format=torch.channels_last)
        for module in self.sam.image_encoder.modules():
            if isinstance(module, TimmAttention):
                module.fused_attn = False  # its backward pass sums in any order
            if isinstance(module, DropPath):
                module.drop_prob = 0.0  # a run of minutes has no time to overfit
        live = self.sam.state_dict()
        self.average = _float_state(self.sam)
        self.live = [live[name] for name in self.average]
        self.phase, self.step = 0, 0
        self.optimiser = self._optimiser()

    def _optimiser(self) -> torch.optim.AdamW:
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.sam.named_parameters():
            matrix = parameter.ndim > 1 and "embed" not in name and "token" not in name.rsplit(".", 2)[-2]
            groups.setdefault((name.startswith("image_encoder."), matrix), []).append(parameter)
        return torch.optim.AdamW(
            [
                {"params": parameters, "encoder": encoder, "weight_decay": WEIGHT_DECAY if matrix else 0.0}
                for (encoder, matrix), parameters in groups.items()
            ],
            betas=(0.9, 0.98),
            foreach=self.device.type != "cuda",
            fused=self.device.type == "cuda",
        )

    def run(self) -> None:
        """Train to the end of the last phase, saving as it goes."""
        saved = time.monotonic()
        while self.phase < len(self.phases):
            phase = self.phases[self.phase]
            if phase.restart and self.step == 0:
                self._restart()
            begun, done, recent = time.monotonic(), 0, list[dict[str, Tensor]]()
            for batch in batches(self._work_of(phase), self.device):
                recent.append(self._train_step(phase, phase.feeds[self.step % len(phase.feeds)], batch))
                self.step, done = self.step + 1, done + 1
                if self.step % 50 == 0 or self.step == phase.steps:
                    self._log(phase, recent, (time.monotonic() - begun) / done)
                    recent = []
                    if time.monotonic() - saved > SAVE_SECONDS:
                        self.save()
                        saved = time.monotonic()
            self.phase, self.step = self.phase + 1, 0

    def _restart(self) -> None:
        rounded = self._rounded()
        self.sam.load_state_dict({**self.sam.state_dict(), **rounded})
        for name, value in rounded.items():
            self.average[name].copy_(value)
        self.optimiser = self._optimiser()

    def _work_of(self, phase: Phase) -> Iterator[tuple[Feed, Sequence[SceneCache], Sequence[int]]]:
        for step in range(self.step, phase.steps):
            feed = phase.feeds[step % len(phase.feeds)]
            yield feed, self.caches[feed.size], (self.seed, self.phase, step)

    def _log(self, phase: Phase, recent: list[dict[str, Tensor]], seconds: float) -> None:
        names = sorted({name for entry in recent for name in entry})
        means = {
            name: float(torch.stack([entry[name].float() for entry in recent if name in entry]).mean())
            for name in names
        }
        if not all(math.isfinite(value) for value in means.values()):
            raise FloatingPointError(
                f"{phase.name} step {self.step}: {means}; the last good checkpoint is {self.folder / 'last.pt'}"
            )
        left = seconds * (phase.steps - self.step) / 60
        line = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(
            f"{phase.name} {self.step}/{phase.steps} {line} | {seconds:.3f} s a step, {left:.1f} min left", flush=True
        )
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"phase": phase.name, "step": self.step, **means}) + "\n")

    def _train_step(self, phase: Phase, feed: Feed, batch: Batch) -> dict[str, Tensor]:
        chance = np.random.default_rng([self.seed, self.phase, self.step, 1])
        generator = torch.Generator(self.device).manual_seed(int(chance.integers(2**62)))
        self._set_rates(phase)
        self.sam.train()
        if phase.freeze_norm:
            for module in self.sam.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        figures = self._gradients(phase, feed, batch, chance, generator)
        nn.utils.clip_grad_norm_(self.sam.parameters(), 1.0, foreach=True)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self._update_average()
        return figures

    def _gradients(
        self, phase: Phase, feed: Feed, batch: Batch, chance: np.random.Generator, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Add a batch's gradients, the decoder's round by round, so that one round's memory is enough."""
        figures: dict[str, Tensor] = {}
        with torch.autocast(self.device.type, torch.bfloat16):
            encoded = self.sam.image_encoder(batch.images.contiguous(memory_format=torch.channels_last))
        embeddings = encoded.detach().requires_grad_()
        if feed.places and phase.lookup_weight:
            flat = places_of(batch, feed.places, generator)
            names = batch.ids.flatten(2).gather(2, flat[:, None].expand(-1, 3, -1))  # (B, 3, Q)
            targets = batch.ids[:, :, None] == names[..., None, None]
            places = coordinates(flat, batch.ids.shape[-1], generator)
            with torch.autocast(self.device.type, torch.bfloat16):
                logits = looked_up_masks(self.sam, embeddings, places).float()
            each = mask_loss(logits, targets, "plain")
            figures["lookup"] = each.detach().mean()
            figures["lookup_iou"] = mask_iou(logits.detach()[:, 1], targets[:, 1]).mean()
            (phase.lookup_weight * each.mean()).backward()
        if feed.prompts:
            figures |= self._decoder_gradients(phase, feed, batch, embeddings, chance, generator)
        encoded.backward(embeddings.grad)
        return figures

    def _decoder_gradients(
        self,
        phase: Phase,
        feed: Feed,
        batch: Batch,
        embeddings: Tensor,
        chance: np.random.Generator,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        frame = feed.crop if feed.own_frame else FRAME
        room = (frame - feed.crop) // 16
        offset = (int(chance.integers(room + 1)), int(chance.integers(room + 1)))
        asked = ask(batch, feed.prompts, bool(chance.random() < THREE_TOKENS), generator)
        clicked = prompts = asked.prompts
        answers, wanted, mask_input = asked.answers, asked.wanted, None
        weights = torch.tensor(TOKEN_WEIGHTS, device=self.device)
        begin, end = phase.quality_weight
        quality_weight = begin + (end - begin) * self.step / max(phase.steps - 1, 1)
        rounds = int(chance.integers(1, phase.rounds + 1))
        figures: dict[str, Tensor] = {}
        for n in range(rounds):
            penalised = n == 0 and self.step % PENALTY_EVERY == 0
            active = penalised or bool(phase.attention_weight)
            with torch.autocast(self.device.type, torch.bfloat16), recorded_logits(self.sam, active) as attended:
                masks, quality = decode_crop(self.sam, embeddings, prompts, offset, mask_input, frame)
            masks, quality = masks.float(), quality.float()
            ious = mask_iou(masks.detach(), wanted[:, :, None])
            loss = (mask_loss(masks, answers, phase.mask_loss) * weights).mean()
            loss = loss + quality_weight * (quality - ious).abs().mean()
            if phase.attention_weight and prompts.labels.shape[2]:
                loss = loss + phase.attention_weight * attention_loss(attended, answers, asked.meant)
            if penalised:
                loss = loss + 0.01 * PENALTY_EVERY * rounds * logit_penalty(attended)
            (loss / rounds).backward()
            masks, quality = masks.detach(), quality.detach()
            best = 1 + quality[:, :, 1:].argmax(-1, keepdim=True)
            if n == 0:
                own = ious.gather(2, best)[..., 0]
                lone = (prompts.labels == 1).any(-1) & (prompts.labels < 2).all(-1)
                for name, chosen in (("point_iou", lone), ("box_iou", ~lone)):
                    figures[name] = (own * chosen).sum() / chosen.sum().clamp(min=1)
                figures["quality_error"] = (quality.gather(2, best)[..., 0] - own).abs().mean()
            else:
                figures[f"round_{n + 1}_iou"] = ious[:, :, 0].mean()
            if n + 1 < rounds:
                token = best if n == 0 and chance.random() < CHOSEN else torch.zeros_like(best)
                answer = masks.take_along_dim(token[..., None, None], 2)[:, :, 0]
                mask_input = answer.flatten(0, 1)[:, None]
                kind = float(chance.random())
                if kind >= MASK_ONLY + REPEATED:
                    clicked = corrected(asked, clicked, answer, generator)
                prompts = without_points(clicked) if kind < MASK_ONLY else clicked
                answers, wanted = asked.meant[:, :, None].expand_as(asked.answers), asked.meant
        return figures

    def _set_rates(self, phase: Phase) -> None:
        share = min(1.0, (self.step + 1) / phase.warm_up)
        done = self.step / max(phase.steps - 1, 1)
        share *= phase.end + (1 - phase.end) * 0.5 * (1 + math.cos(math.pi * done))
        for group in self.optimiser.param_groups:
            group["lr"] = share * (phase.encoder_rate if group["encoder"] else phase.decoder_rate)

    @torch.no_grad()
    def _update_average(self) -> None:
        fresh = self.phase == 0 or self.phases[self.phase].restart
        count = self.step + 1 if fresh else AVERAGE_STEPS
        decay = 1 - 1 / min(count + 1, AVERAGE_STEPS)
        torch._foreach_lerp_(list(self.average.values()), self.live, 1 - decay)

    def _rounded(self) -> dict[str, Tensor]:
        return {name: value.half().float() for name, value in self.average.items()}

    def averaged(self) -> MobileSam:
        """A model with the averaged weights, rounded to float16 as the file holds them, on the CPU, in eval mode."""
        sam = MobileSam()
        state = {**self.sam.state_dict(), **self._rounded()}
        sam.load_state_dict({name: value.detach().cpu() for name, value in state.items()})
        return sam.eval()

    def save(self) -> None:
        """Write `last.pt`, whole or not at all."""
        write_checkpoint(
            self.folder / "last.pt",
            {
                "model": self.sam.state_dict(),
                "average": self.average,
                "optimiser": self.optimiser.state_dict(),
                "config": self._config(),
                "phase": self.phase,
                "step": self.step,
            },
        )

    def _config(self) -> dict[str, Any]:
        return {"seed": self.seed, "phases": [asdict(phase) for phase in self.phases]}

    def resume(self) -> None:
        """Continue from `last.pt` if there is one.

        Raises:
            ValueError: it is damaged, or of other phases or another seed.
        """
        path = self.folder / "last.pt"
        if not path.exists():
            return
        state = read_checkpoint(path, {"average": dict, "phase": int})
        if state["config"] != self._config():
            raise ValueError(
                f"{path} was trained in other phases than phases.py has now, or from another seed; give another --name"
            )
        if not (0 <= state["phase"] <= len(self.phases) and state["step"] >= 0):
            raise damaged(path, f"phase {state['phase']}, step {state['step']}")
        shapes = {name: value.shape for name, value in state["average"].items()}
        if shapes != {name: value.shape for name, value in self.average.items()}:
            raise damaged(path, "the average is not of this model")
        restore(path, state, self.sam, self.optimiser)
        for name, value in self.average.items():
            value.copy_(state["average"][name])
        self.phase, self.step = state["phase"], state["step"]


def _float_state(sam: MobileSam) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in sam.state_dict().items() if value.is_floating_point()}
