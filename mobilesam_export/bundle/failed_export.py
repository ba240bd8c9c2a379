"""What is kept of an export that missed its gates: pictures and figures in ``OUT.failed``, no artifact."""

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mobilesam_export.bundle.destination import overlay_name


def failed_directory(out_dir: Path) -> Path:
    """Beside the bundle that was not written."""
    return out_dir.with_name(out_dir.name + ".failed")


def report_name(target: str) -> str:
    """File name of a target's report."""
    return f"report-{target}.json"


def keep(out_dir: Path, stage: Path, reports: dict[str, dict[str, Any]]) -> str:
    """Keep each failed target's overlay and report.

    Args:
        out_dir: the bundle that was to be.
        stage: where the overlays lie.
        reports: by target.

    Returns:
        One line that says where they are, or why they could not be kept: the failure itself matters more.
    """
    kept = failed_directory(out_dir)
    try:
        kept.mkdir(exist_ok=True)
        for target, report in reports.items():
            (kept / report_name(target)).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
            shutil.copyfile(stage / overlay_name(target), kept / overlay_name(target))
    except OSError as error:
        return f"overlay and report could not be kept in {kept} ({error.strerror or error})"
    return f"overlay and report: {kept}"


def forget(out_dir: Path, targets: Sequence[str]) -> None:
    """Remove what an earlier failure left about targets that pass now; nothing else in that folder."""
    kept = failed_directory(out_dir)
    with suppress(OSError):  # not there, or no folder of ours, or somebody's files are in it: the export is fine anyway
        for target in targets:
            for name in (report_name(target), overlay_name(target)):
                (kept / name).unlink(missing_ok=True)
        kept.rmdir()
