"""What a training run keeps so that, killed at any moment and started again, it goes on as if nothing had happened.

Everything random in a step follows from the seed and the step number: which samples, in which order, and the noise
within the model (stochastic depth). So a checkpoint is the weights, the optimiser, the configuration and one number.
Files are written whole or not at all, and the checkpoint before the last one stays as `last.pt.old`, in case a disk
damages the last one.
"""

from __future__ import annotations

import csv
import math
import random
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reference.regular_file import regular_file_size

LARGEST_LOSSES = 2**30  # bytes


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
    """Write what a run needs to go on; the checkpoint before stays as `NAME.old`.

    Raises:
        OSError: if the disk is full; the checkpoint before stays.
    """
    part = path.with_name(path.name + ".part")
    try:
        torch.save(state, part)
        if path.exists():
            shutil.copyfile(path, path.with_name(path.name + ".old"))
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
        ValueError: if it is damaged or belongs to another configuration.
    """
    if not path.exists():
        return 0
    state = read_checkpoint(path)
    changed = {k: (state["config"].get(k), v) for k, v in config.items() if state["config"].get(k) != v}
    if changed:
        name, (was, now) = next(iter(changed.items()))
        raise ValueError(
            f"{path} was trained with {name} = {was!r}, got {now!r}; continue with the same options or give another "
            "--out"
        )
    restore(path, state, model, optimiser)
    return int(state["step"])


def restore(path: Path, state: Mapping[str, Any], model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put what `read_checkpoint` found at `path` into a model and its optimiser, on their device.

    Raises:
        ValueError: if it does not fit them.
    """
    try:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, " ".join(str(error).split())[:200]) from error


def read_checkpoint(path: Path, more: Mapping[str, type] | None = None) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, onto the CPU: `model`, `optimiser`, `config`, `step`, and what a run adds.

    Args:
        path: Of the checkpoint.
        more: Further entries of this run and their types; a dictionary holds tensors by name, as `model` does.

    Raises:
        ValueError: if it is damaged in any way, with what to do.
    """
    size = regular_file_size(path, "checkpoint", 2**40, ValueError)
    try:
        state = _read_zip(path, size)
    except Exception as error:  # a damaged file makes zipfile, pickle and torch raise anything; all of it says: damaged
        reason = ascii(str(error).strip().partition("\n")[0][:200])[1:-1]
        raise damaged(path, reason or type(error).__name__) from error
    further = dict(more or {})
    kinds = {"model": dict, "optimiser": dict, "config": dict, "step": int, **further}
    if not isinstance(state, dict) or any(not isinstance(state.get(name), kind) for name, kind in kinds.items()):
        raise damaged(path, f"expected {', '.join(kinds)} in it")
    for weights in ("model", *(name for name, kind in further.items() if kind is dict)):
        for name, value in state[weights].items():
            if not isinstance(value, torch.Tensor) or (value.is_floating_point() and not value.isfinite().all()):
                raise damaged(path, f"{name} is not finite")
    found: dict[str, Any] = state
    return found


def _read_zip(path: Path, size: int) -> Any:
    """Read PyTorch's file, which is a zip, after a look at its sizes and checksums; PyTorch checks neither."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > size:
            raise ValueError("compressed, as no checkpoint is")
        if name := archive.testzip():
            raise ValueError(f"{name} does not have its checksum")
    return torch.load(path, map_location="cpu", weights_only=True)


def damaged(path: Path, reason: str) -> ValueError:
    """The error of a checkpoint that cannot be gone on from; it names the one before it where there is one."""
    old = path.with_name(path.name + ".old")
    spare = f"rename {old.name} to {path.name} to go on from the checkpoint before it, or " if old.exists() else ""
    return ValueError(f"{path} is damaged ({reason}); {spare}delete {path.name} to start again from the beginning")


def cosine_rate(step: int, steps: int, peak: float, warm_up: int) -> float:
    """Linear warm-up to the peak, then half a cosine to zero."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))


def require_finite(what: str, value: float, step: int, folder: Path) -> None:
    """Stop at a NaN instead of saving it.

    Raises:
        FloatingPointError: with the next step.
    """
    if not math.isfinite(value):
        raise FloatingPointError(
            f"{what} is {value} at step {step}; {folder / 'last.pt'} holds the last good weights: lower "
            "--learning-rate and run again"
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
            self.rows = read_losses(path, start)
            if len(self.rows) < start and not quiet:
                print(
                    f"{path} lacks {start - len(self.rows)} of {start} steps; the training goes on, the curve has a gap"
                )
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


def read_losses(path: Path, last: int) -> list[tuple[int, float, float]]:
    """The whole lines of a `losses.csv` up to a step: (step, loss, learning rate); damaged ones are left out."""
    rows: dict[int, tuple[int, float, float]] = {}
    regular_file_size(path, "file of losses", LARGEST_LOSSES, ValueError)
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                step, loss, rate = line.split(",")
                row = int(step), float(loss), float(rate)
            except ValueError:  # the header, or a line that was cut
                continue
            if 1 <= row[0] <= last and math.isfinite(row[1]) and math.isfinite(row[2]):
                rows[row[0]] = row
    return [rows[step] for step in sorted(rows)]


def _event_writer(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            f"--tensorboard needs TensorBoard ({error}); pip install tensorboard, or leave it out: losses.csv and "
            "losses.png are written anyway"
        ) from error
    return SummaryWriter(str(folder), purge_step=start + 1)
