"""What an export has to do for each target, refused before any work where it cannot be done."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilesam_export.contract import DEFAULT_IMAGE_SIZE
from mobilesam_export.errors import ExportError
from mobilesam_export.options import MIN_IOU, PREFER, VERIFY
from mobilesam_export.parity.gates import Gates, with_min_iou
from mobilesam_export.precision_plan.plan import PrecisionPlan
from mobilesam_export.targets import named
from mobilesam_export.targets.choices import (
    AUTO,
    calibrated,
    gates_for,
    missing_packages,
    option_of,
    precisions_of,
    takers_of,
    targets_of,
)
from mobilesam_export.targets.target import Target


@dataclass(frozen=True)
class Job:
    """One target to be written.

    Attributes:
        options: those that it takes.
        calibration: photos for its precision's ranges, or to decide ``auto`` on; None for the bundled ones or a
            precision that needs none.
        plan: with its exceptions; None for a precision without any. ``auto`` gets one before it is written.
        prefer: what ``auto`` decides for.
    """

    target: Target
    precision: str
    options: Mapping[str, Any]
    gates: Gates
    calibration: Sequence[Path] | None = None
    plan: PrecisionPlan | None = None
    prefer: str = "size"

    @property
    def by_default(self) -> bool:
        """Whether nothing but the precision was chosen."""
        return not self.options and self.calibration is None and self.plan is None and self.precision != AUTO


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given: neither None, a flag that is off nor an empty list."""
    return {name: value for name, value in options.items() if value is not None and value is not False and value != []}


def level_of(verify: bool | str | None, by_default: str = "full") -> str | None:
    """``full`` or ``quick`` verification, or None for none.

    Args:
        verify: what was asked for; True for the default.
        by_default: of the target.

    Raises:
        ExportError: for another name.
    """
    if verify is None or isinstance(verify, bool):
        return by_default if verify else None
    VERIFY.check(verify)
    return verify


def plan(
    targets: str | Sequence[str],
    precision: str | Mapping[str, str] | None,
    options: Mapping[str, Any],
    verify: bool,
    min_iou: float | None = None,
    calibration: Sequence[Path] | None = None,
    plans: Mapping[str, PrecisionPlan] | None = None,
    prefer: str | None = None,
    image_size: int = DEFAULT_IMAGE_SIZE,
) -> dict[str, Job]:
    """Refuse before any work what cannot be written, then import what writes the rest.

    Args:
        targets: see ``choices.targets_of``.
        precision: see ``choices.precisions_of``.
        options: those that were given, by name; each goes to the targets that take it.
        verify: whether the artifacts will be run.
        min_iou: least mask IoU in place of the precision's own gate.
        calibration: photos for the precisions that need some.
        plans: by target, instead of a precision.
        prefer: what ``auto`` decides for; None for the size.
        image_size: side of the model frame.

    Raises:
        ExportError: unknown targets, options that nobody takes or that do not go together, missing backends.
    """
    names = targets_of(targets)
    if min_iou is not None:
        MIN_IOU.check(min_iou)
        if not verify:
            raise ExportError(f"got min_iou {min_iou} without verification; leave out one of the two")
    plans = plans or {}
    precisions = precisions_of(precision, names, {name: repeated.precision for name, repeated in plans.items()})
    searched = [name for name in names if precisions[name] == AUTO]
    if prefer is not None:
        PREFER.check(prefer)
        if not searched:
            raise ExportError(f"got prefer {prefer}, which only precision {AUTO} takes; add --precision {AUTO}")
    if searched and not verify:
        raise ExportError(f"got precision {AUTO} without verification, by which it decides; leave out --no-verify")
    for name, value in options.items():
        _refuse_for_all(name, value, names)
    taken = {
        target: {name: value for name, value in options.items() if _takes(target, name, value)} for target in names
    }
    for name in names:
        named(name).refuse(precisions[name], taken[name], image_size)
        if verify and (reason := named(name).not_run(taken[name])):
            raise ExportError(f"{name} cannot be verified ({reason}); add --no-verify, or verify=False in Python")
    takers = [name for name in names if precisions[name] in (*calibrated().get(name, ()), AUTO)]
    if calibration is not None and not takers:
        told = ", ".join([AUTO, *(f"{target}={name}" for target, known in calibrated().items() for name in known)])
        raise ExportError(f"got calibration photos, which only these precisions take: {told}; choose one or give none")
    jobs = {}
    for name in names:
        target, chosen = named(name), precisions[name]
        require(target, verify)
        gates = with_min_iou(gates_for(name, target.precisions[0].name if chosen == AUTO else chosen), min_iou)
        jobs[name] = Job(
            target, chosen, taken[name], gates, calibration if name in takers else None,
            plans.get(name), prefer or str(PREFER.default),
        )  # fmt: skip
    return jobs


def _takes(target: str, name: str, value: object) -> bool:
    """Whether a target has an option of that name that can have that value."""
    option = option_of(target, name)
    return option is not None and option.takes(value)


def _refuse_for_all(name: str, value: object, targets: Sequence[str]) -> None:
    """Refuse a value that no target takes, or none of those to be exported."""
    takers = takers_of(name)
    accepting = [target for target in takers if _takes(target, name, value)]
    if not accepting:
        first = next(iter(takers.values()))
        if any(option.expected != first.expected for option in takers.values()):
            raise ExportError(
                f"got {name} {value!r}, expected "
                + ", ".join(f"{option.expected} for {target}" for target, option in takers.items())
            )
        first.check(value)
    if not set(accepting) & set(targets):
        raise ExportError(f"{name} {value} is for {' and '.join(accepting)}, got target {', '.join(targets)}")


def require(target: Target, verify: bool) -> None:
    """Import what a target needs, or say in one line why it is not there."""
    if missing := missing_packages(target):
        raise ExportError(
            f"the {target.name} target is not available here (no {' and '.join(missing)}); {target.remedy}"
        )
    try:
        target.load(verify)
    except ImportError as error:
        raise ExportError(f"the {target.name} target is not available here ({error}); {target.remedy}") from error


@contextmanager
def converter_errors(target: str) -> Iterator[None]:
    """Give what a converter raises a first line that a user can read; out of memory and disk pass through."""
    try:
        yield
    except (ExportError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise ExportError(
            f"the {target} converter failed ({type(error).__name__}: {reason}); run again with --debug for the trace"
        ) from error
