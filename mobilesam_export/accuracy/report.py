"""The figures of a measurement: as a document for programs, and as tables for people."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from mobilesam_export.accuracy.average_precision import NAMES, average_precision
from mobilesam_export.accuracy.dataset import Dataset, Skipped
from mobilesam_export.accuracy.evaluate import Measured
from mobilesam_export.accuracy.prompts import Prompt
from mobilesam_export.accuracy.statistics import figures
from mobilesam_export.accuracy.subject import circumstances

MOST_NAMED = 20


def report_of(
    measured: Measured, dataset: Dataset, prompts: Sequence[Prompt], heading: Mapping[str, Any], with_ap: bool
) -> dict[str, Any]:
    """Everything that was measured."""
    records = measured.records
    skipped = [*dataset.skipped, *(Skipped(*entry) for record in records for entry in record["skipped"])]
    report = {
        **heading,
        "circumstances": circumstances(),
        "photos": {
            "measured": len(records),
            "without_annotations": dataset.unannotated,
            "unreadable": len(measured.unreadable),
            "unreadable_named": _named(measured.unreadable),
        },
        "skipped_annotations": len(skipped),
        "skipped_annotations_named": _named(skipped),
        "crowds": sum(entry["crowd"] for record in records for entry in record["objects"]),
        "prompts": {prompt.name: _figures(records, prompt.name) for prompt in prompts},
        "seconds": round(measured.seconds, 1),
        "photos_of_this_run": measured.measured_now,
    }
    if with_ap:
        report["average_precision"] = average_precision(records)
    return report


def _named(skipped: Sequence[Skipped]) -> list[dict[str, str]]:
    """The first ones, each reason at least once."""
    reasons = Counter[str]()
    for entry in skipped:
        reasons[entry.reason] += 1
    shown = [{"name": entry.name, "reason": entry.reason} for entry in skipped[:MOST_NAMED]]
    seen = {entry["reason"] for entry in shown}
    for entry in skipped[MOST_NAMED:]:
        if entry.reason not in seen and len(shown) < 2 * MOST_NAMED:
            seen.add(entry.reason)
            shown.append({"name": entry.name, "reason": entry.reason})
    return shown


def _figures(records: Sequence[Mapping[str, Any]], prompt: str) -> dict[str, Any]:
    rows = [
        (entry["answers"][prompt], entry["area"], number)
        for number, record in enumerate(records)
        for entry in record["objects"]
    ]
    if not rows:
        return {"objects": 0}
    answers, areas, photos = zip(*rows, strict=True)
    found = figures(
        [answer["iou"] for answer in answers], [answer["iou_prediction"] for answer in answers],
        [answer["best_iou"] for answer in answers], areas, photos,
    )  # fmt: skip
    if "after" in answers[0]:
        each = zip(*(answer["after"] for answer in answers), strict=True)
        found["miou_after_each_click"] = [sum(ious) / len(ious) for ious in each]
    return found


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print what a person wants to know."""
    subject, photos = report["subject"], report["photos"]
    console.print(
        f"{subject['target']} {subject['precision']} at {subject['image_size']}, weights "
        f"{escape(str(subject['weights']))}, {subject['weights_sha256'][:12]}"
    )
    columns = ("prompt", "objects", "mIoU %", "95 %", "small", "medium", "large", "best", "off by")
    table = Table(
        *(Column(name, no_wrap=True) for name in columns), title="mask IoU with the annotations",
        caption="best: of the alternatives, by the truth; off by: the predicted IoU from the measured one",
    )  # fmt: skip
    for name, found in report["prompts"].items():
        if not found["objects"]:
            table.add_row(name, "0")
            continue
        miou, sizes = found["miou"], found["by_size"].values()
        table.add_row(
            name, f"{found['objects']:,}", _percent(miou["mean"]), f"{100 * miou['low']:.1f}-{100 * miou['high']:.1f}",
            *(f"{100 * size['mean']:.1f}" if size["objects"] else "none" for size in sizes),
            f"{100 * found['best_miou']:.1f}", f"{found['predicted_iou']['mean_absolute_error']:.3f}",
        )  # fmt: skip
    console.print(table)
    for name, found in report["prompts"].items():
        if "miou_after_each_click" in found:
            console.print(f"{name}, after each: {', '.join(map(_percent, found['miou_after_each_click']))} %")
    if "average_precision" in report:
        found = report["average_precision"]
        told = ", ".join(f"{name.replace('_', ' ').upper()} {_percent(found[name])}" for name in NAMES)
        console.print(f"with {found['detections']:,} detector boxes: {told}")
        if found["detections_of_other_categories"]:
            console.print(f"{found['detections_of_other_categories']:,} of them are of categories nobody annotated")
    for what, count, named in (
        ("photos could not be measured on", photos["unreadable"], photos["unreadable_named"]),
        ("annotations were left out", report["skipped_annotations"], report["skipped_annotations_named"]),
    ):
        if count:
            console.print(f"[bold yellow]{count:,} {what}:[/bold yellow]")
            for entry in named[:5]:
                console.print(escape(f"  {entry['name']}: {entry['reason']}"))
            if count > 5:
                console.print("  ... (the report names more)")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
