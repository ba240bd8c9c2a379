"""Receipts of devices: what is believed, what is refused, and the table made of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from mobilesam_export import cli
from mobilesam_export.errors import ExportError
from mobilesam_export.receipts import read_receipt, receipt_table


def receipt(**changed: Any) -> dict[str, Any]:
    return {
        "format": "mobilesam-receipt", "format_version": "1", "contract_version": "1",
        "device": "Pixel 9", "system": "Android 16", "desktop": False, "engine": "LiteRT 2.3",
        "compute_unit": "GPU, CPU",
        "image_size": 1024, "precision": "float32", "weights_sha256": "ab",
        "encode_ms": {"p50": 90.5, "p90": 99, "runs": 20}, "predict_ms": {"p50": 12, "p90": 13.5, "runs": 20},
        "memory_mb": 300, "cases": 24,
        "lowest_mask_iou": 0.99973, "worst_case": "chelsea, points", "measured_at": "2026-11-21T12:00:00Z", **changed,
    }  # fmt: skip


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "receipt.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_the_table_has_phones_first_and_marks_desktops(tmp_path: Path) -> None:
    desktop = receipt(device="headless | Chromium", desktop=True, memory_mb=None)
    phone = read_receipt(written(tmp_path, receipt()))
    table = receipt_table([desktop, phone]).splitlines()
    assert len(table) == 4
    assert table[2] == (
        "| Pixel 9 | Android 16 | LiteRT 2.3 | GPU, CPU | 1024 | float32 | 90.5 / 99 | 12 / 13.5 | 300 "
        "| 0.99973 (chelsea, points) |"
    )
    assert table[3].startswith("| headless / Chromium (desktop) |") and "| not told |" in table[3]
    assert {line.count("|") for line in table} == {11}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "other"}, "format .*expected mobilesam-receipt"),
        ({"format_version": "2"}, "format_version"),
        ({"contract_version": "9"}, "contract_version"),
        ({"device": ""}, "device"),
        ({"device": "a\nb"}, "device"),
        ({"system": "x" * 301}, "system"),
        ({"desktop": "no"}, "desktop"),
        ({"image_size": 0}, "image_size"),
        ({"cases": 0}, "cases"),
        ({"lowest_mask_iou": 1.01}, "lowest_mask_iou"),
        ({"lowest_mask_iou": float("nan")}, "lowest_mask_iou"),
        ({"lowest_mask_iou": None}, "lowest_mask_iou"),
        ({"memory_mb": -1}, "memory_mb"),
        ({"encode_ms": None}, "no encode_ms"),
        ({"encode_ms": {"p50": 9, "p90": 8, "runs": 20}}, "encode_ms.p90 is below"),
        ({"predict_ms": {"p50": 0, "p90": 8, "runs": 20}}, "predict_ms.p50"),
        ({"predict_ms": {"p50": 1, "p90": 8, "runs": 3}}, "predict_ms.runs"),
        ({"predict_ms": {"p50": True, "p90": 8, "runs": 20}}, "predict_ms.p50"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(ExportError, match=f"is no receipt \\({told}"):
        read_receipt(written(tmp_path, receipt(**change)))


@pytest.mark.parametrize("content", ["", "[]", "{", '"text"', " " * 70_000])
def test_what_is_no_receipt_at_all_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ExportError, match="is no receipt"):
        read_receipt(written(tmp_path, content))


def test_the_command_prints_the_table_and_names_a_file_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["receipts", str(written(tmp_path, receipt()))]) == 0
    assert "| Pixel 9 |" in capsys.readouterr().out
    assert cli.main(["receipts", str(tmp_path / "none.json")]) == 1
    assert "none.json cannot be read" in capsys.readouterr().err


def test_the_documented_table_is_made_from_the_committed_receipts() -> None:
    root = Path(__file__).parent.parent
    receipts = [read_receipt(path) for path in sorted((root / "benchmarks/results/receipts").glob("*.json"))]
    assert len(receipts) >= 4
    assert receipt_table(receipts) in (root / "docs/web.md").read_text()
