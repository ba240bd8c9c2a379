"""Find the cheapest precision whose masks hold, with as few exceptions as they need.

Precisions are tried from the cheapest on. One that misses is asked part by part: what does rounding this part alone
cost the masks? The parts that cost most then become exceptions, from worst to least, until the masks hold. A precision
that would need more than half of its parts as exceptions is left for the next one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mobilesam_export.errors import ExportError

MOST_EXCEPTIONS = 0.5  # of a precision's parts; with more, the next precision is simpler and hardly larger


@dataclass(frozen=True)
class Trial:
    """What files of a precision with some exceptions came to on the calibration photos.

    Attributes:
        mask_iou_min: lowest of all informative masks; None if there is none.
        loss: mean of the squared losses of mask IoU. Roundings of different parts are nearly independent, so their
            losses add up in this measure, and the worst masks count most.
        failures: checks that were missed.
        worst_failure: the first of them in words, or None.
        size_bytes: of both files.
    """

    precision: str
    exceptions: tuple[str, ...]
    mask_iou_min: float | None
    mask_iou_mean: float | None
    loss: float
    failures: int
    worst_failure: str | None
    size_bytes: int

    @property
    def holds(self) -> bool:
        """Whether every check passed."""
        return self.failures == 0

    @property
    def lowest(self) -> str:
        """The lowest mask IoU in words."""
        return "no informative mask" if self.mask_iou_min is None else f"lowest mask IoU {self.mask_iou_min:.4f}"


class Bench(Protocol):
    """What writes and measures."""

    def parts(self, precision: str) -> Sequence[str]:
        """The parts that a precision rounds."""
        ...

    def measure(self, precision: str, exceptions: Sequence[str], what: str) -> Trial:
        """Write files with exceptions and put the calibration photos to them.

        Args:
            what: this trial in words, for the progress.
        """
        ...

    def size(self, precision: str) -> int:
        """Bytes of both files without exceptions."""
        ...


@dataclass(frozen=True)
class Found:
    """What a precision came to.

    Attributes:
        trial: the one that holds, or the nearest.
        costs: what rounding each part alone cost, worst first; empty if not asked.
        tried: all precisions of the search that were tried.
    """

    trial: Trial
    costs: tuple[tuple[str, float], ...]
    tried: tuple["Found", ...] = ()


def search(target: str, precisions: Sequence[str], bench: Bench, smallest: bool) -> Found:
    """Find the cheapest files that hold.

    Args:
        precisions: the cheapest first.
        smallest: go on as long as a later precision without exceptions is smaller than what was found.

    Raises:
        ExportError: none holds; says what was reached and what costs most.
    """
    best: Found | None = None
    tried: list[Found] = []
    for precision in precisions:
        if best is not None and not (smallest and best.trial.exceptions):
            break  # the cheapest, as it is
        if best is not None and bench.size(precision) >= best.trial.size_bytes:
            continue
        found = _widen(precision, bench)
        tried.append(found)
        if found.trial.holds and (best is None or found.trial.size_bytes < best.trial.size_bytes):
            best = found
    if best is None:
        raise ExportError(_what_was_reached(target, tried))
    return replace(best, tried=tuple(tried))


def _widen(precision: str, bench: Bench) -> Found:
    """The fewest exceptions with which a precision holds; if it never does, the trial that came nearest."""
    bare = bench.measure(precision, (), f"{precision} everywhere")
    parts = bench.parts(precision)
    if bare.holds or len(parts) < 2:
        return Found(bare, ())
    costs = []
    for number, part in enumerate(parts, 1):
        others = tuple(other for other in parts if other != part)
        trial = bench.measure(precision, others, f"{precision}: what {part} alone costs ({number} of {len(parts)})")
        costs.append((part, trial.loss))
    costs.sort(key=lambda cost: -cost[1])
    worst_first = [part for part, _ in costs]

    def with_exceptions(count: int) -> Trial:
        what = f"{precision} with {count} of {len(parts)} parts exact"
        return bench.measure(precision, tuple(worst_first[:count]), what)

    return Found(_fewest(with_exceptions, bare, int(MOST_EXCEPTIONS * len(parts))), tuple(costs))


def _fewest(with_exceptions: Callable[[int], Trial], bare: Trial, most: int) -> Trial:
    """Double the number of exceptions until the masks hold, then halve the gap below it."""
    nearest, failed, count = bare, 0, 1
    while True:
        trial = with_exceptions(min(count, most))
        if trial.holds:
            break
        failed = min(count, most)
        nearest = min(nearest, trial, key=lambda tried: -(tried.mask_iou_min or 0))
        if failed == most:
            return nearest
        count *= 2
    holding = min(count, most)
    while holding - failed > 1:
        middle = (holding + failed) // 2
        between = with_exceptions(middle)
        if between.holds:
            trial, holding = between, middle
        else:
            failed = middle
    return trial


def _what_was_reached(target: str, tried: Sequence[Found]) -> str:
    """The error when nothing holds: each precision's nearest trial, and the parts that cost it most."""
    lines = [f"no plan of {target} holds on the calibration photos:"]
    for found in tried:
        trial = found.trial
        exact = f" with {len(trial.exceptions)} parts exact" if trial.exceptions else ""
        lines.append(f"  {trial.precision}{exact}: {trial.lowest}; missed: {trial.worst_failure}")
        if found.costs:
            costliest = ", ".join(part for part, _ in found.costs[:5])
            lines.append(f"    what costs most: {costliest}")
    reached = max((found.trial.mask_iou_min or 0 for found in tried), default=0)
    lines.append(f"next: --min-iou {int(reached * 1000) / 1000:g} or a larger --image-size")
    return "\n".join(lines)
