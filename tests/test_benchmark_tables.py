"""What the benchmarks conclude from what they measure: differences, intervals, recall, tables, and going on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import receipts
from benchmarks.everything import recall
from benchmarks.receipts_drawn import draw, markdown


def test_the_difference_to_the_reference_is_paired_by_object() -> None:
    reference = [[0.2, 0.9], [0.5], [0.7, 0.1, 0.4]]
    worse = [[iou - 0.01 for iou in scene] for scene in reference]
    found = receipts.figures(worse, reference)
    assert found["objects"] == 6
    assert found["miou"]["mean"] == pytest.approx(np.mean([0.2, 0.9, 0.5, 0.7, 0.1, 0.4]) - 0.01)
    # The same loss everywhere: no scene that is drawn changes it, however far the objects' own IoUs are apart.
    assert [found["difference"][name] for name in ("mean", "low", "high")] == pytest.approx([-0.01] * 3)
    assert found["miou"]["high"] - found["miou"]["low"] > 0.1


def test_recall_counts_the_masks_that_are_found_again() -> None:
    first, second = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    first[:5], second[:, :5] = True, True
    nearly = first.copy()
    nearly[5, :1] = True  # 50 of 51
    assert recall([first, second], [nearly], 0.9) == 0.5
    assert recall([first, second], [nearly], 0.99) == 0.0
    assert recall([], [first], 0.9) == 0.0


def row(target: str, precision: str, size: int) -> dict[str, Any]:
    interval = {"mean": 0.7, "low": 0.6, "high": 0.8}
    accuracy = {"objects": 8, "miou": interval, "difference": {"mean": -0.001, "low": -0.002, "high": 0.001}}
    timed = None if target == "coreml" else {"encoder": 2.0, "decoder": 1.0, "encoder_ms": 9.0, "decoder_ms": 3.0}
    return {
        "target": target, "precision": precision, "image_size": size, "encoder_mb": 14.0, "decoder_mb": 8.5,
        "embedding_psnr_db": 70.0, "mask_iou_min": 0.98, "mask_iou_mean": 0.995, "gate": 0.99, "passed": False,
        "accuracy": {"box": accuracy, "click": accuracy}, "latency_ratio": timed,
        "peak_mb": None if timed is None else 400.0, "versions": {},
    }  # fmt: skip


ABOUT: dict[str, Any] = {
    "weights": "demo",
    "weights_sha256": "a" * 64,
    "scenes": {"split": "held-out", "count": 10, "objects": 8},
    "machine": {"cpu": "a CPU", "system": "Linux", "onnxruntime": "1", "torch": "2", "date": "2026-11"},
}


def test_rows_are_kept_for_the_same_weights_and_make_way_for_others(tmp_path: Path) -> None:
    path = tmp_path / "receipts.json"
    first = receipts.Receipts(path, ABOUT)
    first.add(row("tflite", "int8", 512))
    first.add(row("onnx", "int8", 1024))
    again = receipts.Receipts(path, ABOUT)
    assert [entry["target"] for entry in again.rows] == ["onnx", "tflite"]  # the larger size first
    assert again.row("onnx", "int8", 1024) == row("onnx", "int8", 1024)
    assert again.row("onnx", "int8", 512) is None
    assert receipts.Receipts(path, {**ABOUT, "weights_sha256": "b" * 64}).rows == []


def test_the_table_says_what_missed_its_gate_what_was_not_timed_and_on_what(tmp_path: Path) -> None:
    rows = [row("onnx", "int8", 512), row("coreml", "float16", 512)]
    text = markdown(ABOUT, rows)
    onnx, coreml = text.splitlines()[2:4]
    assert "`int8` misses its gate of 0.99" in onnx
    assert "| 0.50 | 1.00 | 400 |" in onnx  # half the time
    assert "70.0 (60.0 to 80.0)" in onnx
    assert "-0.10 (-0.20 to +0.10)" in onnx
    assert "| - | - | - |" in coreml
    assert "sha256 aaaaaaaaaaaa" in text
    both = {**row("coreai", "float16", 1024), "decoder_mb": None, "photos": 1}
    rows += [both, row("executorch", "float32", 1024)]
    assert "| coreai | `float16` misses its gate of 0.99 (one photo, 8 objects) | 1024 | 14.0 for both |" in (
        markdown(ABOUT, rows)
    )
    draw(rows, ABOUT, tmp_path / "plot.png")
    assert np.asarray(Image.open(tmp_path / "plot.png")).std() > 5


def test_what_was_measured_is_drawn_again_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert receipts.main(["--draw", "--out", str(tmp_path)]) == 1
    assert "receipts.json" in capsys.readouterr().err
    (tmp_path / "receipts.json").write_text(json.dumps({"about": ABOUT, "rows": [row("onnx", "int8", 512)]}))
    assert receipts.main(["--draw", "--out", str(tmp_path)]) == 0
    assert "int8" in (tmp_path / "receipts.md").read_text()
