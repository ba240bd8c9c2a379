"""The paper's Table 2 (three methods at equal compute) and Table 4 (batch size and iterations), at demonstration scale.

    python -m reference.training reproduce --out reproduced/            # 76 CPU minutes, resumable
    python -m reference.training reproduce --out smoke/ --smoke         # half a minute, numbers without meaning

Teacher: the demonstration weights, its embeddings computed once. Data: generated scenes of 224 pixels, unaugmented as
in the paper; evaluation on the held-out split. A method's number of steps follows from its measured CPU seconds a step,
so that all get the same compute. The learning rate is tuned per method at a third of the budget, with the first seed.
Whatever ordering results is written. One more row asks what the paper does not: decoupled distillation, and then
prompts in the loop, at the same compute.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reference.checkpoint import load_mobile_sam, weights_sha256
from reference.mobile_sam import MobileSam
from reference.training.distillation.baselines import (
    LOOP_SHARE,
    METHODS,
    EmbeddedScenes,
    Trial,
    agreement_with_teacher,
    draw_batch,
    embed_scenes,
    needs_masks,
    start_student,
    train_trial,
    trial_loss,
)
from reference.training.scenes.evaluate_scenes import circumstances
from reference.training.scenes.scene_cache import SceneCache, open_cache, write_cache

PAPERS_METHODS = ("decoupled", "semi-coupled", "coupled")


@dataclass(frozen=True)
class ReproduceConfig:
    """What `reproduce` needs.

    Attributes:
        out: Folder for scenes, finished cells and tables.
        teacher: MobileSAM checkpoint.
        student: timm backbone.
        seconds: CPU seconds of one run.
        smoke: Everything once, as small as possible.
    """

    out: Path
    teacher: str = "demo"
    student: str = "tiny_vit_5m_224"
    seconds: float = 260.0
    smoke: bool = False


class Bench:
    """Teacher, scenes, costs and finished cells of one reproduction."""

    def __init__(self, config: ReproduceConfig) -> None:
        self.config = config
        self.seeds = (0,) if config.smoke else (0, 1, 2)
        self.rates = (1e-3,) if config.smoke else (3e-4, 1e-3, 3e-3, 1e-2)
        self.teacher: MobileSam = load_mobile_sam(config.teacher)
        self._refuse_other_settings()
        self.train = self._embed("train", 40 if config.smoke else 4000)
        self.held_out = self._embed("held-out", 16 if config.smoke else 128)
        self.costs = self._cell("costs", self._measure)

    def _scenes(self, split: str, count: int) -> SceneCache:
        folder = self.config.out / f"scenes-{split}"
        if not (folder / "cache.json").exists():
            write_cache(folder, count, 224, split, first=20_000_000)
        return open_cache(folder)

    def _cell(self, name: str, work: Any) -> dict[str, Any]:
        """Do a piece of work once; its result is a file."""
        path = self.config.out / "cells" / f"{name}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            begun = time.process_time()
            result = {**work(), "cpu_seconds": round(time.process_time() - begun, 1)}
            part = path.with_suffix(".part")
            part.write_text(json.dumps(result, indent=2) + "\n")
            part.replace(path)
            print(f"{name}: {result}", flush=True)
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def _refuse_other_settings(self) -> None:
        """Cells are of one teacher, student and budget.

        Raises:
            ValueError: the folder holds cells of others.
        """
        now = {**asdict(self.config), "teacher": weights_sha256(self.teacher)}
        del now["out"]
        then = {k: v for k, v in self._cell("settings", lambda: now).items() if k != "cpu_seconds"}
        for name, value in now.items():
            if then[name] != value:
                raise ValueError(
                    f"{self.config.out} holds runs with {name} {then[name]}, got {value}; give another --out or the "
                    "same options"
                )

    def _embed(self, split: str, count: int) -> EmbeddedScenes:
        scenes = self._scenes(split, count)
        path = self.config.out / f"embeddings-{split}-{weights_sha256(self.teacher)[:16]}.npy"
        self._cell(f"embed-{split}", lambda: {"pictures": len(embed_scenes(self.teacher, scenes, path))})
        return EmbeddedScenes(scenes, embed_scenes(self.teacher, scenes, path))

    def _measure(self) -> dict[str, float]:
        """CPU seconds a step of each method, batch 8.

        The teacher's part is left out where it can be computed once. In the loop it answers prompts that nobody knew
        before, so there it counts, and a step is the mean of both kinds.
        """
        costs = {}
        for method in METHODS:
            trial = Trial(method, 1e-3, 0, 4, student=self.config.student)
            student = start_student(trial, self.teacher)
            costs[method] = 0.0
            for step, share in ((0, 1 - LOOP_SHARE), (trial.steps - 1, LOOP_SHARE)):  # in the loop these two differ
                seconds = []
                for n in range(2 if self.config.smoke else 7):
                    batch = draw_batch(self.train, self.teacher, [3, n], 8, needs_masks(trial))
                    begun = time.process_time()
                    trial_loss(trial, student, self.teacher, batch, step).backward()
                    seconds.append(time.process_time() - begun)
                costs[method] += share * float(np.median(seconds))
        return costs

    def seconds_spent(self) -> dict[str, float]:
        """CPU seconds of the training pictures' embeddings, and of all finished cells."""
        cells = {path.stem: json.loads(path.read_text()) for path in (self.config.out / "cells").glob("*.json")}
        return {
            "embed": float(cells["embed-train"]["cpu_seconds"]),
            "all": sum(float(cell["cpu_seconds"]) for cell in cells.values()),
        }

    def steps(self, method: str, share: float = 1.0) -> int:
        """Steps that the budget buys."""
        return 2 if self.config.smoke else max(1, round(share * self.config.seconds / self.costs[method]))

    def miou(self, name: str, trial: Trial) -> float:
        """Train and evaluate, once."""

        def work() -> dict[str, Any]:
            try:
                student = train_trial(trial, self.teacher, self.train)
            except FloatingPointError as error:
                return {**asdict(trial), "miou": 0.0, "failed": str(error)}
            return {
                **asdict(trial),
                "miou": agreement_with_teacher(student, self.teacher, self.held_out, 2 if self.config.smoke else 12),
            }

        return float(self._cell(name, work)["miou"])

    def best_rate(self, method: str) -> float:
        """Tune the learning rate at a third of the budget."""
        trial = Trial(method, 0.0, 100, self.steps(method, 1 / 3), student=self.config.student)
        found = {r: self.miou(f"tune-{method}-{r:g}", replace(trial, learning_rate=r)) for r in self.rates}
        return max(found, key=lambda r: found[r])


def run_name(trial: Trial) -> str:
    """Of a run's cell; both tables share the runs that they have in common."""
    return f"{trial.method}-batch{trial.batch_size}-{trial.steps}-{trial.learning_rate:g}-{trial.seed}"


def reproduce(config: ReproduceConfig) -> str:
    """Fill in the missing cells and write `tables.md`, `tables.json` and `tables.png`; returns the tables."""
    torch.set_num_threads(1)
    config.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(config)
    rates = {method: bench.best_rate(method) for method in METHODS}
    rows: list[dict[str, Any]] = []

    def row(table: str, label: str, trial: Trial) -> None:
        values = [bench.miou(run_name(replace(trial, seed=seed)), replace(trial, seed=seed)) for seed in bench.seeds]
        rows.append({"table": table, "label": label, "steps": trial.steps, "rate": trial.learning_rate, "miou": values})

    for method in METHODS:
        row(
            "2" if method in PAPERS_METHODS else "ours",
            method,
            Trial(method, rates[method], 0, bench.steps(method), student=config.student),
        )
    base = Trial("decoupled", rates["decoupled"], 0, bench.steps("decoupled"), student=config.student)
    half = max(1, base.steps // 2)
    row("4", "batch 4, half the steps", replace(base, batch_size=4, steps=half))
    row("4", "batch 8, half the steps", replace(base, steps=half))
    row("4", "batch 8, all steps", base)
    spent = bench.seconds_spent()
    text = _markdown(rows, spent, config)
    found = {"rows": rows, "costs": bench.costs, "spent": spent, "seconds": config.seconds}
    facts = {"student": config.student, "train": len(bench.train.scenes), "held_out": len(bench.held_out.scenes)}
    text_of_facts = json.dumps({**found, **facts, **circumstances(bench.teacher)}, indent=2)
    (config.out / "tables.json").write_text(text_of_facts + "\n")
    (config.out / "tables.md").write_text(text + "\n")
    _plot(rows, config.out / "tables.png")
    return text


def _markdown(rows: list[dict[str, Any]], spent: dict[str, float], config: ReproduceConfig) -> str:
    lines = ["Smoke run: the numbers mean nothing.\n"] if config.smoke else []
    lines += [
        "| table | run | steps | learning rate | mIoU with the teacher | spread of seeds |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        spread = f"{min(r['miou']):.3f} to {max(r['miou']):.3f}"
        lines.append(
            f"| {r['table']} | {r['label']} | {r['steps']} | {r['rate']:g} | {np.mean(r['miou']):.3f} | {spread} |"
        )
    each = "two student steps" if config.smoke else f"{config.seconds:.0f} CPU seconds of student steps"
    lines.append(
        f"\nEach full run has {each}. The teacher's embeddings, which all methods read, took {spent['embed']:.0f} "
        f"once; everything together {spent['all'] / 60:.0f} CPU minutes."
    )
    return "\n".join(lines)


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    axes = (figure := Figure(figsize=(7, 3.5), layout="constrained")).subplots()
    for at, r in enumerate(rows):
        axes.plot([at] * len(r["miou"]), r["miou"], "o", color="tab:blue" if r["table"] == "2" else "tab:orange")
    axes.set_xticks(range(len(rows)), [r["label"] for r in rows], rotation=20, ha="right")
    axes.set(ylabel="mIoU with the teacher")
    figure.savefig(path, dpi=120)
