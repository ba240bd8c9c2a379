"""``mobilesam-export verify``."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.cli.command import Command
from mobilesam_export.cli.shared import add_judging, add_parts_of_checkpoint, model_of, photos_of, quickly_verified
from mobilesam_export.errors import ExportError
from mobilesam_export.options import MIN_IOU
from mobilesam_export.progress import Progress

if TYPE_CHECKING:
    from mobilesam_export.parity.report import ParityReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("bundle", type=Path, metavar="DIR")
    parser.add_argument("--checkpoint", help="what it was exported from (default: as the manifest says)")
    add_parts_of_checkpoint(parser)
    quick = parser.add_mutually_exclusive_group()
    quick.add_argument("--quick", action="store_true", help="one photo with every kind of prompt instead of all")
    quick.add_argument("--full", action="store_true", help=f"all photos, for {quickly_verified()} too")
    add_judging(parser)
    parser.add_argument("--json", action="store_true", help="print the parity figures as JSON")


def run(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    """Measure again and say what passed."""
    from mobilesam_export.pipeline import not_run, verify_bundle

    if arguments.min_iou is not None:
        MIN_IOU.check(arguments.min_iou)
    manifest, photos = Manifest.read(arguments.bundle), photos_of(arguments)
    unjudged = [f"{target} cannot be verified ({reason})" for target, reason in not_run(manifest).items()]
    if len(unjudged) == len(manifest.targets):
        raise ExportError("; ".join(unjudged))
    level = "quick" if arguments.quick else "full" if arguments.full else None
    reports = verify_bundle(
        arguments.bundle, model_of(manifest, arguments), progress,
        level=level, min_iou=arguments.min_iou, photos=photos,
    )  # fmt: skip
    if arguments.json:
        print(json.dumps({report.target: report.as_dict() for report in reports}, indent=2))
    else:
        for report in reports:
            print(report.describe())
    failed = [report.target for report in reports if not report.passed]
    if failed:
        raise ExportError(
            f"{', '.join(failed)} does not agree with the reference{_allowed(manifest, failed)}\n"
            f"next: mobilesam-export export --overwrite with another precision or size"
            f"{_least_passing([report for report in reports if not report.passed])}"
        )
    if unjudged:
        raise ExportError(f"{'; '.join(unjudged)}; the other targets passed")
    return 0


def _allowed(manifest: Manifest, targets: Sequence[str]) -> str:
    """What a bundle's manifest says of a gate that its exporter lowered; it is said, and does not count."""
    lowered = {
        target: asked
        for target in targets
        if (asked := ((manifest.targets[target].parity or {}).get("judged") or {}).get("min_iou")) is not None
    }
    told = ", ".join(f"{target} with --min-iou {asked:g}" for target, asked in lowered.items())
    return f" (exported by choice: {told})" if told else ""


def _least_passing(failed: "Sequence[ParityReport]") -> str:
    """A ``--min-iou`` with which all of them pass, if there is one."""
    least = [report.passing_min_iou() for report in failed]
    found = [min_iou for min_iou in least if min_iou is not None]
    return f" or, to accept this, --min-iou {min(found):g}" if len(found) == len(least) else ""


VERIFY_BUNDLE = Command(
    "verify",
    "check a bundle's files and measure its parity again",
    "mobilesam-export verify dist",
    add_arguments,
    run,
)
