"""Timing by turns: contenders run one after the other, round by round, so that a machine that slows down slows all.

Quote the ratios, not the milliseconds.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
import torch
from rich.console import Console
from rich.progress import track

from mobilesam_export.photos import PHOTO_DIR

PHOTO = PHOTO_DIR / "coffee.png"
SETTLE_S = 0.03  # the last contender's idle worker threads spin for a while and would slow the next one
# Of x86-64 and ARM, as Linux names them, oldest first: what decides which kernels an engine takes.
VECTOR_FLAGS = (
    "avx", "fma", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
)  # fmt: skip
console = Console(stderr=True)


@dataclass
class Timing:
    """Samples of one contender at one task, in milliseconds."""

    samples_ms: list[float] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        """A percentile of the samples, in milliseconds."""
        return float(np.percentile(self.samples_ms, percent))


def interleave(contenders: dict[str, Callable[[], object]], rounds: int, label: str) -> dict[str, Timing]:
    """Run every contender once a round, after one round that is not counted."""
    timings = {name: Timing() for name in contenders}
    for number in track(range(rounds + 1), label, console=console):
        for name, run in contenders.items():
            time.sleep(SETTLE_S)
            begin = time.perf_counter()
            run()
            if number:
                timings[name].samples_ms.append(1e3 * (time.perf_counter() - begin))
    return timings


def require_a_round(parser: argparse.ArgumentParser, rounds: int, threads: list[int]) -> None:
    """Leave with the usage if there would be nothing to time."""
    if rounds < 1 or min(threads) < 1:
        parser.error(f"got {rounds} rounds and {threads} threads, expected at least 1 of each")


def ratio_to(timings: dict[str, Timing], base: str, name: str) -> float:
    """How many times faster than ``base``: the median of the ratios within each round."""
    pairs = zip(timings[base].samples_ms, timings[name].samples_ms, strict=True)
    return statistics.median(b / a for b, a in pairs)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    names = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    flags = {
        flag for line in _cpuinfo() if line.startswith(("flags", "Features")) for flag in line.split(":")[1].split()
    }
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "vector_instructions": [flag for flag in VECTOR_FLAGS if flag in flags],
        "logical_cpus": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "onnx": onnx.__version__,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
