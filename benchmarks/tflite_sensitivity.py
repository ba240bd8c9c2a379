"""Which layers of the TFLite encoder bear 8 bits worst: each is quantised alone, everything else stays float32.

    python benchmarks/tflite_sensitivity.py                              # S = 448, one thread, about ten minutes
    python benchmarks/tflite_sensitivity.py --image-size 224 --recipes int8_static

Activations are calibrated once (on the bundled photos, mirrored) and the ranges serve every layer, so a layer costs
seconds. What is done is in the JSON file at once: the same command again continues an interrupted sweep, and starts
afresh for other weights or another size. ``noise`` is the squared error of the embedding in parts of its variance,
mean over the photos. Masks decide, because equal noise of two layers costs them differently. Errors of single layers
are nearly independent, so squares of what they cost the mean mask IoU add up (the row "all of them" tells how well):
``kept`` lists as few layers to keep in float as leave a predicted loss of at most ``--loss``.
"""

import argparse
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks import RESULTS
from benchmarks.interleaved import console, machine
from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.parity.compare import Answers, ask
from mobilesam_export.parity.gates import FLOAT32
from mobilesam_export.parity.report import judge
from mobilesam_export.targets.tflite.flatbuffer import Subgraph, read_model, write_model
from mobilesam_export.targets.tflite.layers import layer_of
from mobilesam_export.targets.tflite.passes.compact import compact
from mobilesam_export.targets.tflite.precision import (
    Ranges,
    calibrate,
    calibration_samples,
    quantise,
    sensitivity,
)
from mobilesam_export.targets.tflite.recipes import RECIPES, QuantisationRecipe
from mobilesam_export.targets.tflite.runtime import TFLiteRuntime
from mobilesam_export.targets.tflite.write import write
from reference import Predictor, load_mobile_sam
from reference.checkpoint import weights_sha256

Floats = NDArray[np.float32]
WHOLE = "all of them"
# Parts of the prompt decoder, whose linear layers get 8-bit weights together; by parts of their names.
DECODER_GROUPS = {
    "MLPs": {"mlp"},
    "self-attention": {"self_attn"},
    "cross-attention": {"cross_attn_token_to_image", "cross_attn_image_to_token", "final_attn_token_to_image"},
}


def layers_of(encoder: Path, recipe: QuantisationRecipe) -> list[str]:
    """The layers that a recipe could quantise, in the order of the graph."""
    graph = Subgraph(read_model(encoder), 0)
    return [
        layer_of(graph.graph.tensors[int(operator.outputs[0])].name.decode())
        for operator in graph.graph.operators
        if graph.name(operator) in recipe.operators and graph.constant(int(operator.inputs[1])) is not None
    ]


def noise(expected: Floats, got: Floats) -> float:
    """Squared error in parts of the variance."""
    return float(np.square(got - expected, dtype=np.float64).mean() / expected.var(dtype=np.float64))


def score(encoder: Path, decoder: Path, reference: Answers) -> dict[str, float]:
    """How far an encoder's embeddings and masks are from the reference's; the decoder is float32."""
    with BundlePredictor(TFLiteRuntime(encoder, decoder, threads=1), "") as predictor:
        answers = ask(predictor, PHOTOS, reference)
    ious = judge("tflite", FLOAT32, reference, answers).informative_ious
    pairs = [(reference[name].image_embeddings, answers[name].image_embeddings) for name in reference]
    return {
        "noise": fmean(noise(expected, got) for expected, got in pairs),
        "mask_iou_mean": fmean(ious),
        "mask_iou_min": min(ious),
    }


def sweep(
    files: tuple[Path, Path], recipe: QuantisationRecipe, reference: Answers, path: Path, result: dict[str, Any]
) -> None:
    """Fill ``result`` layer by layer, and ``path`` with it."""
    encoder, decoder = files
    layers = layers_of(encoder, recipe)
    done = result["recipes"].setdefault(recipe.name, {})
    alone = encoder.with_name("alone.tflite")
    ranges: Ranges | None = None
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        for layer in progress.track([*layers, WHOLE], description=recipe.name):
            if layer in done:
                continue
            if recipe.kind == "static" and ranges is None:
                ranges = calibrate(encoder, recipe, calibration_samples(result["image_size"]))
            others = () if layer == WHOLE else tuple(other for other in layers if other != layer)
            alone.write_bytes(encoder.read_bytes())
            quantise(alone, replace(recipe, keep_float=others), ranges=ranges)
            done[layer] = score(alone, decoder, reference)
            path.write_text(json.dumps(result, indent=1) + "\n")


def sweep_decoder(files: tuple[Path, Path], reference: Answers, result: dict[str, Any]) -> None:
    """The same for groups of the decoder's linear layers, weights only, behind a float32 encoder."""
    encoder, decoder = files
    recipe = replace(RECIPES["int8"], operators=("FULLY_CONNECTED",))
    layers = layers_of(decoder, recipe)
    rows = result.setdefault("decoder", {})
    alone = decoder.with_name("alone.tflite")
    for group, names in DECODER_GROUPS.items():
        if group not in rows:
            alone.write_bytes(decoder.read_bytes())
            others = tuple(layer for layer in layers if names.isdisjoint(layer.split(".")))
            quantise(alone, replace(recipe, keep_float=others))
            saved = (decoder.stat().st_size - alone.stat().st_size) / 1e6 / 3  # a third of it against float16
            rows[group] = {"mb_less_than_float16": saved, **score(encoder, alone, reference)}


def resume(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run left for the same weights and size, else nothing."""
    if path.is_file():
        earlier: dict[str, Any] = json.loads(path.read_text())
        if {name: earlier.get(name) for name in ("image_size", "weights_sha256")} == {
            name: about[name] for name in ("image_size", "weights_sha256")
        }:
            return earlier | {"machine": about["machine"]}
    return about | {"recipes": {}, "kept": {}}


def measure(arguments: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Everything, as it goes into the JSON file."""
    sam = load_mobile_sam(arguments.checkpoint, arguments.image_size)
    about = {
        "image_size": sam.image_size,
        "weights": sam.weights_source,
        "weights_sha256": weights_sha256(sam),
        "machine": machine(),
    }
    result = resume(path, about)
    reference = ask(Predictor(sam), PHOTOS)
    with tempfile.TemporaryDirectory() as folder:
        encoder, decoder = write(sam, Path(folder), progress=console.print)
        model = read_model(encoder)
        compact(model)
        write_model(model, encoder)
        for name in arguments.recipes:
            sweep((encoder, decoder), RECIPES[name], reference, path, result)
            costs = {layer: cost(row) for layer, row in result["recipes"][name].items() if layer != WHOLE}
            kept = sensitivity(costs, arguments.loss**2)
            rest = math.fsum(costs[layer] for layer in costs if layer not in kept)
            result["kept"][name] = {"layers": kept, "predicted_loss": rest**0.5}
        sweep_decoder((encoder, decoder), reference, result)
    return result


def cost(row: dict[str, float]) -> float:
    """What adds up over layers: the squared loss of mean mask IoU."""
    return (1 - row["mask_iou_mean"]) ** 2


def markdown(result: dict[str, Any]) -> str:
    """The costliest layers of each recipe."""
    lines = [f"TFLite encoder, one layer quantised at a time; S = {result['image_size']}, {result['weights']} weights"]
    for name, layers in result["recipes"].items():
        lines += ["", f"### {name}", "", "| layer | noise | mask IoU mean | least |", "|---|---|---|---|"]
        order = sorted(layers, key=lambda layer: (layer != WHOLE, -cost(layers[layer])))
        for layer in order[:16]:
            row = layers[layer]
            lines.append(f"| {layer} | {row['noise']:.2e} | {row['mask_iou_mean']:.4f} | {row['mask_iou_min']:.4f} |")
        kept = result["kept"][name]
        lines += ["", f"In float for a predicted loss of {kept['predicted_loss']:.4f}: "]
        lines[-1] += ", ".join(kept["layers"]) or "none"
    lines += ["", "### Prompt decoder, 8-bit weights in one group of linear layers", ""]
    lines += ["| group | MB less than float16 | mask IoU mean | least |", "|---|---|---|---|"]
    for group, row in result["decoder"].items():
        figures = (f"{row['mb_less_than_float16']:.2f}", f"{row['mask_iou_mean']:.4f}", f"{row['mask_iou_min']:.4f}")
        lines.append(f"| {group} | " + " | ".join(figures) + " |")
    return "\n".join(lines) + "\n"


def print_table(result: dict[str, Any]) -> None:
    """The costliest layers on the terminal."""
    for name, layers in result["recipes"].items():
        table = Table("layer", "noise", "IoU mean", "IoU min", title=f"{name}, S = {result['image_size']}")
        for layer in sorted(layers, key=lambda layer: -cost(layers[layer]))[:16]:
            row = layers[layer]
            table.add_row(layer, f"{row['noise']:.2e}", f"{row['mask_iou_mean']:.4f}", f"{row['mask_iou_min']:.4f}")
        Console(width=max(90, Console().width)).print(table)


def main() -> None:
    """Parse the command line and sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--image-size", type=int, default=448)
    fast = [name for name, recipe in RECIPES.items() if recipe.activation_bits != 16]  # those kernels take minutes
    parser.add_argument("--recipes", nargs="+", choices=fast, default=fast)
    parser.add_argument("--loss", type=float, default=0.009, help="of mean mask IoU, that a recipe may leave")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the files")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "tflite_sensitivity.json"
    result = measure(arguments, path)
    print_table(result)
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(result))
    print(path, path.with_suffix(".md"), sep="\n")


if __name__ == "__main__":
    main()
