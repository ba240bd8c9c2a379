"""What each TFLite precision costs and gains: size, time, embedding, masks.

    python benchmarks/tflite_precision.py                                 # S = 1024, one thread, about ten minutes
    python benchmarks/tflite_precision.py --image-size 448 --recipes int8 int8_dynamic

One conversion, from which every precision is made by the passes of an export. The cases, photos and gates are
those of parity; static recipes are calibrated on the same photos mirrored. Times are medians of interleaved
encoder runs over float32's, on one thread. Recipes with 16-bit activations run on LiteRT's reference kernels here,
some forty times slower: they are judged at ``--slow-size`` and not timed.
Which layers bear 8 bits worst: ``tflite_sensitivity.py``.
"""

import argparse
import importlib.metadata
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import RESULTS
from benchmarks.interleaved import console, interleave, machine, ratio_to
from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.parity.compare import Answers, ask
from mobilesam_export.parity.gates import FLOAT16_WEIGHTS, FLOAT32, compressed
from mobilesam_export.parity.report import judge
from mobilesam_export.targets.tflite.precision import calibration_samples
from mobilesam_export.targets.tflite.recipes import RECIPES
from mobilesam_export.targets.tflite.runtime import TFLiteRuntime
from mobilesam_export.targets.tflite.write import compress, write
from reference import Predictor, load_mobile_sam
from reference.checkpoint import weights_sha256

Files = tuple[Path, Path]
PACKAGES = ("ai-edge-litert", "ai-edge-quantizer", "litert-torch", "torch")
COLUMNS = ("S", "encoder MB", "decoder MB", "time", "cosine", "mask IoU mean", "lowest", "gate", "passed")


def make(files: Files, folder: Path, name: str, image_size: int) -> Files:
    """The files of one precision."""
    (folder / name).mkdir()
    made = folder / name / files[0].name, folder / name / files[1].name
    for signature, source, target in zip(("encode", "decode"), files, made, strict=True):
        shutil.copyfile(source, target)
        if name != "float32":
            recipe = RECIPES.get(name)
            static = recipe is not None and recipe.kind == "static"
            compress(target, recipe, signature, calibration_samples(image_size) if static else None)
    return made


def judge_files(name: str, files: Files, reference: Answers, image_size: int) -> dict[str, Any]:
    """Sizes and parity of one precision."""
    gates = FLOAT32 if name == "float32" else FLOAT16_WEIGHTS
    if name in RECIPES:
        gates = compressed(RECIPES[name].mask_iou, RECIPES[name].reason)
    with BundlePredictor(TFLiteRuntime(*files, threads=1), "") as predictor:
        report = judge("tflite", gates, reference, ask(predictor, PHOTOS, reference))
    ious = report.informative_ious
    return {
        "image_size": image_size,
        "encoder_mb": files[0].stat().st_size / 1e6,
        "decoder_mb": files[1].stat().st_size / 1e6,
        "embedding_cosine_min": min(embedding.cosine for embedding in report.embeddings),
        "mask_iou_mean": fmean(ious),
        "mask_iou_min": min(ious),
        "gate": gates.mask_iou.limit,
        "gate_reason": gates.mask_iou.reason,
        "passed": report.passed,
        "failures": [str(failure) for failure in report.failures],
        "worst": str(report.worst),
    }


def measure_size(
    checkpoint: str, image_size: int, names: Sequence[str], rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """About the weights, and a row for each precision at one size; no times if ``rounds`` is 0."""
    sam = load_mobile_sam(checkpoint, image_size)
    console.print(f"weights: {sam.weights_source}, S = {image_size}")
    reference = ask(Predictor(sam), PHOTOS)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "source").mkdir()
        encoder, decoder = write(sam, folder / "source", progress=console.print)
        files: dict[str, Files] = {}
        for name in names:
            console.print(f"{name}: quantising and judging")
            files[name] = make((encoder, decoder), folder, name, image_size)
            rows[name] = judge_files(name, files[name], reference, image_size)
        if rounds:
            image = np.zeros((1, 3, image_size, image_size), np.float32)
            runtimes = {name: TFLiteRuntime(*pair, threads=1) for name, pair in files.items()}
            contenders: dict[str, Callable[[], object]] = {
                name: partial(runtime.encode, image) for name, runtime in runtimes.items()
            }
            timings = interleave(contenders, rounds, "encoder")
            for name in files:
                rows[name]["time_over_float32"] = 1 / ratio_to(timings, "float32", name)
    return {"weights": sam.weights_source, "weights_sha256": weights_sha256(sam)}, rows


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, as it goes into the JSON file."""
    slow = [name for name in arguments.recipes if RECIPES[name].activation_bits == 16]
    fast = [name for name in arguments.recipes if name not in slow]
    about, rows = measure_size(
        arguments.checkpoint, arguments.image_size, ["float32", "float16", *fast], arguments.rounds
    )
    if slow:
        rows |= measure_size(arguments.checkpoint, arguments.slow_size, slow, 0)[1]
    versions = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {**about, "machine": machine(), "versions": versions, "precisions": rows}


def cells(row: dict[str, Any]) -> list[str]:
    """One precision's figures, in the order of ``COLUMNS``."""
    return [
        str(row["image_size"]),
        f"{row['encoder_mb']:.1f}",
        f"{row['decoder_mb']:.1f}",
        f"{row['time_over_float32']:.2f}" if "time_over_float32" in row else "not timed",
        f"{row['embedding_cosine_min']:.6f}",
        f"{row['mask_iou_mean']:.4f}",
        f"{row['mask_iou_min']:.3f}",
        f"{row['gate']:g}",
        "yes" if row["passed"] else "NO",
    ]


def markdown(result: dict[str, Any]) -> str:
    """The table for the README."""
    lines = ["| precision | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in result["precisions"].items():
        lines.append(f"| `{name}` | " + " | ".join(cells(row)) + " |")
    return "\n".join(lines) + "\n"


def print_table(result: dict[str, Any]) -> None:
    """The same on the terminal."""
    table = Table(title=f"TFLite precisions, {result['weights']} weights")
    for heading in ("", *COLUMNS):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name, row in result["precisions"].items():
        table.add_row(name, *cells(row))
    Console(width=max(110, Console().width)).print(table)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--slow-size", type=int, default=448, help="of recipes with 16-bit activations")
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--rounds", type=int, default=10, help="of timing; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the files")
    arguments = parser.parse_args()
    result = measure(arguments)
    print_table(result)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "tflite_precision.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(result))
    print(path, path.with_suffix(".md"), sep="\n")


if __name__ == "__main__":
    main()
