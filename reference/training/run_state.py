"""What a training run keeps so that, killed at any moment and started again, it goes on as if nothing had happened.

Everything random in a step follows from the seed and the step number: which samples, in which order, and the noise
within the model (stochastic depth). So a checkpoint is the weights, the optimiser, the configuration and one number.
Files are written whole or not at all.
"""

from __future__ import annotations

import csv
import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


def seed_step(seed: int, step: int, process: int) -> None:
    """Make this step's randomness a function of the seed, the step and the process."""
    mixed = int(np.random.SeedSequence([seed, step, process]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)  # noqa: NPY002 - libraries below us draw from it
    torch.manual_seed(mixed)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a CPU, let a step's sums not depend on how the threads happen to run.

    Without it two threads add up the gradient of TinyViT's attention biases, which many pixel pairs share, in the order
    in which they come. On GPUs a step stays as it is, fast.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def save_state(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, config: Mapping[str, Any], step: int
) -> None:
    """Write a checkpoint; see `write_checkpoint`."""
    write_checkpoint(
        path, {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "config": dict(config), "step": step}
    )


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write what a run needs to go on.

    Raises:
        OSError: if the disk is full; the checkpoint before stays.
    """
    part = path.with_name(path.name + ".part")
    try:
        torch.save(state, part)
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        raise OSError(
            f"could not write {path} ({error}); the checkpoint before it is whole: free some disk and run the same "
            "command"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def load_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, config: Mapping[str, Any]) -> int:
    """Load a checkpoint if there is one; returns the step to go on from.

    Raises:
        ValueError: if it belongs to another configuration.
    """
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    changed = {k: (state["config"].get(k), v) for k, v in config.items() if state["config"].get(k) != v}
    if changed:
        name, (was, now) = next(iter(changed.items()))
        raise ValueError(
            f"{path} was trained with {name} = {was!r}, got {now!r}; continue with the same options or give another "
            "--out"
        )
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def cosine_rate(step: int, steps: int, peak: float, warm_up: int) -> float:
    """Linear warm-up to the peak, then half a cosine to zero."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))


def require_finite(loss: float, step: int, folder: Path) -> None:
    """Stop at a NaN instead of saving it.

    Raises:
        FloatingPointError: with the next step.
    """
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"loss is {loss} at step {step}; {folder / 'last.pt'} holds the last good weights: lower --learning-rate "
            "and run again"
        )


class LossLog:
    """Losses as CSV, a line on the terminal with throughput and time left, and a PNG at the end.

    Args:
        folder: Where `losses.csv` and `losses.png` go.
        steps: Of the whole run.
        images_a_step: Over all processes.
        start: First step of this process's life; later lines in the CSV are dropped.
        quiet: Processes other than the first write nothing.
        tensorboard: Write TensorBoard's events to `folder / "tensorboard"` too.

    Raises:
        ValueError: if TensorBoard is asked for and not installed.
    """

    def __init__(
        self, folder: Path, steps: int, images_a_step: int, start: int, quiet: bool, tensorboard: bool = False
    ) -> None:
        self.events = _event_writer(folder / "tensorboard", start) if tensorboard and not quiet else None
        self.folder, self.steps, self.images, self.start, self.quiet = folder, steps, images_a_step, start, quiet
        self.begun = time.monotonic()
        self.rows: list[tuple[int, float, float]] = []
        path = folder / "losses.csv"
        if path.exists() and start:
            with path.open() as file:
                rows = [(int(r[0]), float(r[1]), float(r[2])) for r in list(csv.reader(file))[1:]]
            self.rows = [row for row in rows if row[0] <= start]
        if not quiet:
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([("step", "loss", "learning_rate"), *self.rows])

    def add(self, step: int, loss: float, rate: float, every: int) -> None:
        """Note the loss after `step` steps."""
        if self.quiet:
            return
        self.rows.append((step, loss, rate))
        with (self.folder / "losses.csv").open("a", newline="") as file:
            csv.writer(file).writerow((step, repr(loss), repr(rate)))
        if self.events:
            self.events.add_scalar("loss", loss, step)
            self.events.add_scalar("learning_rate", rate, step)
        if step % every == 0 or step == self.steps:
            seconds = (time.monotonic() - self.begun) / (step - self.start)
            left = seconds * (self.steps - step) / 60
            print(
                f"step {step}/{self.steps} loss {loss:.4f} rate {rate:.1e} {self.images / seconds:.1f} images/s, "
                f"{left:.0f} min left",
                flush=True,
            )

    def plot(self) -> None:
        """Write `losses.png`."""
        if self.quiet or not self.rows:
            return
        if self.events:
            self.events.close()
        from matplotlib.figure import Figure

        axes = (figure := Figure(figsize=(7, 4))).subplots()
        axes.plot([row[0] for row in self.rows], [row[1] for row in self.rows], linewidth=0.8)
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        figure.savefig(self.folder / "losses.png", dpi=120)


def _event_writer(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            f"--tensorboard needs TensorBoard ({error}); pip install tensorboard, or leave it out: losses.csv and "
            "losses.png are written anyway"
        ) from error
    return SummaryWriter(str(folder), purge_step=start + 1)
