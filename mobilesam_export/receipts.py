"""Receipts: what the sample apps' "measure" screens wrote on real devices, checked and made into a table."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobilesam_export.contract import CONTRACT_VERSION
from mobilesam_export.errors import ExportError

FORMAT = "mobilesam-receipt"
FORMAT_VERSION = "1"
_LARGEST_BYTES = 64 * 1024
_LONGEST_TEXT = 300
_TEXTS = ("device", "system", "engine", "compute_unit", "precision", "weights_sha256", "worst_case", "measured_at")
_COLUMNS = (
    "device", "system", "engine", "compute unit", "S", "precision", "encode ms, p50 / p90", "tap ms, p50 / p90",
    "memory MB", "lowest mask IoU",
)  # fmt: skip


def read_receipt(path: Path) -> dict[str, Any]:
    """Read one receipt; its format is in ``apps/README.md``.

    Raises:
        ExportError: if it is none, or says what cannot be: nothing here believes a file because it parses.
    """

    def refuse(what: str) -> ExportError:
        return ExportError(f"{path} is no receipt ({what}); save it again from the app's measure screen")

    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise refuse(f"{path.stat().st_size:,} bytes, expected at most {_LARGEST_BYTES:,}")
        receipt = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(f"{path} cannot be read ({error.strerror or error}); check the path") from error
    except ValueError as error:
        raise refuse(f"not JSON: {error}") from error
    if not isinstance(receipt, dict):
        raise refuse("not an object")
    for key, expected in (
        ("format", FORMAT), ("format_version", FORMAT_VERSION), ("contract_version", CONTRACT_VERSION),
    ):  # fmt: skip
        if receipt.get(key) != expected:
            raise refuse(f"{key} {json.dumps(receipt.get(key))[:40]}, expected {expected}")
    for key in _TEXTS:
        text = receipt.get(key)
        if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST_TEXT or not text.isprintable():
            raise refuse(f"{key} {json.dumps(text)[:40]}, expected a line of text")
    if not isinstance(receipt.get("desktop"), bool):
        raise refuse("desktop is neither true nor false")

    def number(value: object, what: str, low: float, high: float) -> float:
        numeric = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not numeric or not low <= value <= high:  # type: ignore[operator]
            raise refuse(f"{what} {json.dumps(value)[:40]}, expected {low:g} to {high:g}")
        return float(value)  # type: ignore[arg-type]

    number(receipt.get("image_size"), "image_size", 32, 4096)
    number(receipt.get("cases"), "cases", 1, 10_000)
    number(receipt.get("lowest_mask_iou"), "lowest_mask_iou", 0, 1)
    if receipt.get("memory_mb") is not None:
        number(receipt["memory_mb"], "memory_mb", 1, 1e6)
    for key in ("encode_ms", "predict_ms"):
        times = receipt.get(key)
        if not isinstance(times, dict):
            raise refuse(f"no {key}")
        p50, p90 = (number(times.get(p), f"{key}.{p}", 1e-3, 1e7) for p in ("p50", "p90"))
        if p90 < p50:
            raise refuse(f"{key}.p90 is below its p50")
        number(times.get("runs"), f"{key}.runs", 20, 1e6)
    return receipt


def receipt_table(receipts: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, phones first, then by device, engine and S; desktops are marked."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for r in sorted(receipts, key=lambda r: (r["desktop"], r["device"], r["engine"], r["image_size"])):
        cells = (
            f"{r['device']} (desktop)" if r["desktop"] else r["device"],
            r["system"],
            r["engine"],
            r["compute_unit"],
            str(r["image_size"]),
            r["precision"],
            f"{r['encode_ms']['p50']:g} / {r['encode_ms']['p90']:g}",
            f"{r['predict_ms']['p50']:g} / {r['predict_ms']['p90']:g}",
            "not told" if r["memory_mb"] is None else f"{r['memory_mb']:g}",
            f"{r['lowest_mask_iou']:.5f} ({r['worst_case']})",
        )
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)
