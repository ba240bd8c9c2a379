"""What was asked of which target: names of targets, precisions and options, from the command line or from Python."""

import importlib.util
from collections.abc import Mapping, Sequence

from mobilesam_export import targets as houses
from mobilesam_export.errors import ExportError
from mobilesam_export.options import Option, shown
from mobilesam_export.parity.gates import Gates
from mobilesam_export.targets.target import Precision, Target

AUTO = "auto"  # not a precision of its own: one of the target's, decided on the weights at hand


def precision_of(target: Target) -> Option:
    """A target's precision, as an option like the others."""
    names = tuple(precision.name for precision in target.precisions)
    return Option("precision", str, "from exact to small", choices=names, default=target.default_precision)


def options_of(target: str) -> tuple[Option, ...]:
    """All of a target's options, the precision first."""
    found = houses.named(target)
    return (precision_of(found), *found.options)


def option_of(target: str, name: str) -> Option | None:
    """A target's option of that name, or None if it has none."""
    return next((option for option in options_of(target) if option.name == name), None)


def takers_of(name: str) -> dict[str, Option]:
    """The targets that have an option of that name, each with its own description of it."""
    return {target: option for target in houses.names() if (option := option_of(target, name))}


def names_beyond_precision() -> list[str]:
    """All targets' options but the precision, each name once, in the order of the targets."""
    return list(dict.fromkeys(option.name for target in houses.ALL for option in target.options))


def calibrated() -> dict[str, tuple[str, ...]]:
    """The precisions that take calibration photos, of the targets that have any."""
    found = {
        target.name: tuple(precision.name for precision in target.precisions if precision.calibrated)
        for target in houses.ALL
    }
    return {target: precisions for target, precisions in found.items() if precisions}


def gates_for(target: str, precision: str) -> Gates:
    """The gates of a target's precision.

    Raises:
        ExportError: for a precision without gates: nothing is shipped unjudged.
    """
    return _precision(houses.named(target), precision).gates


def _precision(target: Target, name: str) -> Precision:
    for precision in target.precisions:
        if precision.name == name:
            return precision
    known = ", ".join(precision.name for precision in target.precisions)
    raise ExportError(f"got precision {name!r} for {target.name}, expected one of {known}; choose one with --precision")


def targets_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names of targets, each once, from a list of them or of texts such as ``onnx,coreml``.

    ``all`` means every one whose packages are installed, besides those that are named.

    Raises:
        ExportError: for an unknown name or none at all.
    """
    texts = (given,) if isinstance(given, str) else tuple(given)
    names = [name.strip() for text in texts for name in str(text).split(",")]
    unknown = [name or "''" for name in names if name != "all" and name not in houses.names()]
    if unknown or not names:
        got = ", ".join(unknown) if names else "list []"
        raise ExportError(f"got target {got}, expected {', '.join(houses.names())}")
    if "all" in names:
        installed = [target.name for target in houses.ALL if target.name in names or not missing_packages(target)]
        names = installed or list(houses.names())
    return tuple(dict.fromkeys(names))


def missing_packages(target: Target) -> list[str]:
    """Those that a target needs and that are not installed."""
    return [package for package in target.packages if importlib.util.find_spec(package) is None]


def left_out(given: str | Sequence[str]) -> str | None:
    """What ``all`` does not mean here and how to get it, in a line; None if nothing is missing or ``all`` is not given.

    Args:
        given: as of ``targets_of``, which takes it.
    """
    if "all" not in ",".join([given] if isinstance(given, str) else given).replace(" ", "").split(","):
        return None
    chosen = targets_of(given)
    missing = [target for target in houses.ALL if target.name not in chosen]
    told = "; ".join(
        f"{target.name} (no {' and '.join(missing_packages(target))}): {target.remedy.split(', or ')[0]}"
        for target in missing
    )
    return f"all is every target that is installed; left out is {told}" if missing else None


def precisions_of(
    given: str | Mapping[str, str] | None, targets: Sequence[str], planned: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Each target's precision.

    Args:
        given: one for all targets, a mapping by target, or a text such as ``coreml=float16,tflite=int8_dynamic``, where
            a name without a target is for those not named. What is given for nobody is the target's default.
        targets: to be exported.
        planned: what a plan says for some of them.

    Raises:
        ExportError: an unknown precision, one for a target that is not exported, or another than planned.
    """
    chosen, others = _by_target(given)
    if foreign := [target for target in chosen if target not in targets]:
        raise ExportError(f"got a precision for {', '.join(foreign)}, expected one of the targets {', '.join(targets)}")
    result = {}
    for target in targets:
        option = option_of(target, "precision")
        assert option is not None
        precision = chosen.get(target, others)
        if planned and target in planned:
            if precision not in (None, planned[target]):
                raise ExportError(
                    f"got precision {shown(precision)} for {target} and a plan of {planned[target]}; leave out one"
                )
            result[target] = planned[target]
            continue
        if precision == AUTO and houses.named(target).searched:
            result[target] = AUTO
            continue
        if precision is not None and not option.takes(precision):
            several = "; each target can have its own: --precision coreml=float16,tflite=int8_dynamic"
            raise ExportError(
                f"got precision {shown(precision)} for {target}, expected {option.expected}"
                f"{several if len(targets) > 1 else ''}"
            )
        result[target] = str(precision or option.default)
    return result


def _by_target(given: str | Mapping[str, str] | None) -> tuple[dict[str, str], str | None]:
    """Precisions by target, and the one for targets that are not named."""
    if given is None or isinstance(given, Mapping):
        return dict(given or {}), None
    if not isinstance(given, str):
        raise ExportError(f"got precision {shown(given)}, expected a name, a mapping by target, or None")
    named: dict[str, str] = {}
    others: list[str] = []
    for part in given.split(","):
        target, equals, precision = (piece.strip() for piece in part.partition("="))
        if not equals:
            others.append(target)
        elif target in named:
            raise ExportError(f"got precision {given}, which names {target} twice; give one precision a target")
        else:
            named[target] = precision
    if len(others) > 1:
        raise ExportError(f"got precisions {', '.join(others)} for one target; say whose: coreml=float16,tflite=int8")
    return named, others[0] if others else None
