"""A bundle's manifest as tables for people."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from mobilesam_export.bundle.manifest import Manifest, TargetEntry
from mobilesam_export.progress import megabytes

_HOW_MASKS_ARE_JUDGED = (
    "every mask is judged: by IoU, or by the part of the photo where it differs if it is nearly empty or nearly full"
)


def print_manifest(manifest: Manifest, console: Console) -> None:
    """Print weights, files, and parity of each prompt kind."""
    weights = manifest.weights
    family = escape(weights.family or "MobileSAM")
    told = f"weights {escape(weights.source)}, sha256 {weights.sha256[:12]}, image size {manifest.image_size}"
    console.print(f"{family}, {told}")
    if weights.notice:
        console.print(f"[bold yellow]{escape(weights.notice)}[/bold yellow]")
    files = Table("precision", Column("file", no_wrap=True), "size", "sha256")
    for entry in manifest.targets.values():
        for file in entry.files:
            files.add_row(entry.precision, escape(file.path), megabytes(file.size_bytes), file.sha256[:12])
    console.print(files)
    for entry in manifest.targets.values():
        if entry.parity is None:
            reason = entry.notes.get("not_run")  # text of anybody's
            why = escape(f" ({reason})") if reason else ""
            console.print(f"[bold yellow]{entry.target}: exported without verification{why}[/bold yellow]")
        else:
            console.print(_parity_table(entry))
            console.print(_HOW_MASKS_ARE_JUDGED)
            embeddings = entry.parity["embeddings"].values()
            cosine, psnr_db = (min(figures[name] for figures in embeddings) for name in ("cosine", "psnr_db"))
            console.print(f"embeddings: cosine at least {cosine:.7f}, PSNR at least {psnr_db:.1f} dB")
        if refused := _npu(entry.notes):
            console.print(escape(refused))


def _npu(notes: Mapping[str, Any]) -> str | None:
    """What ``npu_lint`` said of each graph; None for a target that it does not look at. Notes are text of anybody's."""
    found = notes.get("npu")
    problems = {
        graph: report["problems"]
        for graph, report in (found.items() if isinstance(found, dict) else ())
        if isinstance(report, dict) and isinstance(report.get("problems"), list)
    }
    told = (f"{graph}: {', '.join(map(str, said)) or 'within the limits'}" for graph, said in problems.items())
    return f"published limits of NPUs: {'; '.join(told)}" if problems else None


def _parity_table(entry: TargetEntry) -> Table:
    assert entry.parity is not None
    worst = entry.parity["worst_mask"]
    caption = worst and escape(f"worst: {worst['photo']}, {worst['prompt']}, {worst['mask']}")
    table = Table(
        Column("prompt", no_wrap=True), "masks", "by IoU", "lowest IoU", "mean IoU", "logits error", "IoU error",
        title=f"{entry.target} {entry.precision}: parity with the reference{_judged(entry.parity)}", caption=caption,
    )  # fmt: skip
    for kind, figures in entry.parity["prompts"].items():
        numbers = (
            figures["mask_iou_min"], figures["mask_iou_mean"], figures["logits_error_max"],
            figures["iou_prediction_error_max"],
        )  # fmt: skip
        ious = ["none" if number is None else f"{number:.5f}" for number in numbers[:2]]
        table.add_row(
            escape(kind),
            str(figures["masks"]),
            str(figures["informative_masks"]),
            *ious,
            *(f"{n:.1e}" for n in numbers[2:]),
        )
    return table


def _judged(parity: Mapping[str, Any]) -> str:
    """How parity was measured and judged, where that is not the default."""
    judged = parity.get("judged", {})
    told = [
        "one photo" if judged.get("level") == "quick" else "",
        "own photos" if judged.get("photos") == "own" else "",
        "" if judged.get("min_iou") is None else f"mask gate {judged['min_iou']:g} by choice",
    ]
    return "".join(f", {part}" for part in told if part)
