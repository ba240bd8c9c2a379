"""What each TFLite precision costs and gains: size, time, embedding, masks; and which layers bear 8 bits worst.

    python benchmarks/tflite_precision.py                                 # the table, about ten minutes
    python benchmarks/tflite_precision.py --image-size 512 --sweep        # and one layer at a time

One conversion, from which every precision is made by the passes of an export. The cases, photos and gates are
those of parity; static recipes are calibrated on the same photos mirrored. Times are medians of interleaved
encoder runs over float32's, on one thread.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402 - the repository's root must be on the path first, and so on below
from cpu_latency import console, interleave, machine, ratio_to  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

from mobilesam_export.parity.cases import PHOTOS  # noqa: E402
from mobilesam_export.parity.compare import Answers, ask  # noqa: E402
from mobilesam_export.parity.gates import FLOAT16_WEIGHTS, FLOAT32, gates_for_recipe  # noqa: E402
from mobilesam_export.parity.metrics import cosine  # noqa: E402
from mobilesam_export.parity.report import judge  # noqa: E402
from mobilesam_export.precision.tflite import RECIPES, Recipe, calibration_samples, sensitivity  # noqa: E402
from mobilesam_export.predictor import BundlePredictor  # noqa: E402
from mobilesam_export.runtimes.tflite import TFLiteRuntime  # noqa: E402
from mobilesam_export.targets.tflite_flatbuffer import Subgraph, read_model  # noqa: E402
from mobilesam_export.targets.to_tflite import compress, write  # noqa: E402
from reference import Predictor, load_mobile_sam  # noqa: E402

Files = tuple[Path, Path]


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


def judge_files(name: str, files: Files, reference: Answers) -> dict[str, Any]:
    """Sizes and parity of one precision."""
    gates = FLOAT32 if name == "float32" else FLOAT16_WEIGHTS
    if name in RECIPES:
        gates = gates_for_recipe(RECIPES[name])
    with BundlePredictor(TFLiteRuntime(*files, threads=1), "") as predictor:
        report = judge("tflite", gates, reference, ask(predictor, PHOTOS, reference))
    ious = [
        iou
        for case in report.cases
        for iou, informative in zip(case.mask_iou, case.informative, strict=True)
        if informative
    ]
    return {
        "encoder_mib": files[0].stat().st_size / 2**20,
        "decoder_mib": files[1].stat().st_size / 2**20,
        "embedding_cosine_min": min(embedding.cosine for embedding in report.embeddings),
        "mask_iou_mean": fmean(ious),
        "mask_iou_min": min(ious),
        "gate": gates.mask_iou.limit,
        "gate_reason": gates.mask_iou.reason,
        "passed": report.passed,
        "worst": str(report.worst),
    }


def sweep(encoder: Path, folder: Path, recipe: Recipe, image_size: int) -> dict[str, float]:
    """1 - cosine of the embedding with one CONV_2D at a time quantised, by the name of its output."""
    graph = Subgraph(read_model(encoder), 0)
    layers = [
        graph.graph.tensors[int(operator.outputs[0])].name.decode()
        for operator in graph.graph.operators
        if graph.name(operator) == "CONV_2D"
    ]
    samples = calibration_samples(image_size)[:2]

    def embed(path: Path) -> list[np.ndarray]:
        with TFLiteRuntime(path, decoder_of(path, folder), threads=2) as runtime:
            return [runtime.encode(sample["image"].transpose(0, 3, 1, 2)) for sample in samples]

    expected = embed(encoder)
    losses = {}
    for layer in track(layers, f"{recipe.name}, one layer at a time", console=console):
        target = folder / "one" / encoder.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(encoder, target)
        alone = replace(recipe, operators=("CONV_2D",), keep_float=(f"^(?!.*{escape(layer)}).*$",))
        compress(target, alone, "encode", samples)
        got = embed(target)
        losses[layer] = max(1 - cosine(a, b) for a, b in zip(expected, got, strict=True))
    return losses


def escape(name: str) -> str:
    """A tensor name as part of a regular expression, whole: the quantiser joins an operator's outputs with ';'."""
    return re.escape(name) + "(;|$)"


def decoder_of(encoder: Path, folder: Path) -> Path:
    """Any decoder; the runtime wants one."""
    return folder / "float32" / encoder.name.replace("encoder", "decoder")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, as it goes into the JSON file."""
    sam = load_mobile_sam(arguments.checkpoint, arguments.image_size)
    console.print(f"weights: {sam.weights_source}")
    reference = ask(Predictor(sam), PHOTOS)
    result: dict[str, Any] = {"image_size": sam.image_size, "weights": sam.weights_source, "machine": machine()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "float32").mkdir()
        encoder, decoder = write(sam, folder / "float32", progress=console.print)
        files = {"float32": (encoder, decoder)}
        for name in ("float16", *arguments.recipes):
            files[name] = make((encoder, decoder), folder, name, sam.image_size)
        result["precisions"] = {name: judge_files(name, pair, reference) for name, pair in files.items()}
        fast = [name for name in files if name not in RECIPES or RECIPES[name].activation_bits != 16]
        image = np.zeros((1, 3, sam.image_size, sam.image_size), np.float32)
        runtimes = {name: TFLiteRuntime(*files[name], threads=1) for name in fast}
        contenders: dict[str, Callable[[], object]] = {
            name: partial(runtime.encode, image) for name, runtime in runtimes.items()
        }
        timings = interleave(contenders, arguments.rounds, "encoder")
        for name in fast:
            result["precisions"][name]["time_over_float32"] = 1 / ratio_to(timings, "float32", name)
        if arguments.sweep:
            losses = sweep(encoder, folder, RECIPES["int8_static"], sam.image_size)
            result["sensitivity"] = dict(sorted(losses.items(), key=lambda item: -item[1]))
            result["keep_float"] = sensitivity(losses, arguments.budget)
    return result


def print_tables(result: dict[str, Any]) -> None:
    """Tables on the terminal."""
    out = Console(width=max(130, Console().width))
    table = Table(title=f"TFLite precisions, S = {result['image_size']}, weights: {result['weights']}")
    headings = ("", "encoder MiB", "decoder MiB", "time", "cosine", "IoU mean", "IoU min", "gate", "passed")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for name, row in result["precisions"].items():
        table.add_row(
            name,
            f"{row['encoder_mib']:.1f}",
            f"{row['decoder_mib']:.1f}",
            f"{row['time_over_float32']:.2f}x" if "time_over_float32" in row else "",
            f"{row['embedding_cosine_min']:.6f}",
            f"{row['mask_iou_mean']:.4f}",
            f"{row['mask_iou_min']:.4f}",
            f"{row['gate']:g}",
            "yes" if row["passed"] else "NO",
        )
    out.print(table)
    for layer, loss in list(result.get("sensitivity", {}).items())[:15]:
        out.print(f"{loss:.2e}  {layer[-110:]}")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sweep", action="store_true", help="quantise one layer at a time")
    parser.add_argument("--budget", type=float, default=1e-3, help="sum of losses that the sweep may leave")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the JSON file")
    arguments = parser.parse_args()
    result = measure(arguments)
    print_tables(result)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "tflite_precision.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
