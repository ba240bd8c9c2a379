"""Size and accuracy of every Core ML precision, on the bundled photos and every kind of prompt.

Writes benchmarks/results/coreml_precision.json and prints a Markdown table; --update-docs also puts it into
docs/precision.md, between its two marks. Packages are executed with our executor (on a Mac by Apple's runtime).
Nothing is timed.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, ROOT
from benchmarks.interleaved import machine
from mobilesam_export.bundle.checksums import size_bytes
from mobilesam_export.bundle.manifest import versions_for
from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.parity.compare import Answers, ask
from mobilesam_export.parity.report import judge
from mobilesam_export.targets.choices import gates_for
from mobilesam_export.targets.coreml.precision.recipes import RECIPES
from mobilesam_export.targets.coreml.runtime import CoreMLRuntime
from mobilesam_export.targets.coreml.write import write
from reference import Predictor, load_mobile_sam
from reference.checkpoint import weights_sha256
from reference.mobile_sam import MobileSam

RESULT = RESULTS / "coreml_precision.json"
PAGE, BEGIN, END = ROOT / "docs" / "precision.md", "<!-- coreml precision: begin -->", "<!-- coreml precision: end -->"
HEADER = [
    "| precision | encoder + decoder, MB | PSNR dB | cosine | lowest mask IoU | mean mask IoU | gate |",
    "|---|---|---|---|---|---|---|",
]


def measure(sam: MobileSam, precision: str, deployment_target: str, reference: Answers) -> dict[str, Any]:
    """Export, execute, compare."""
    with tempfile.TemporaryDirectory() as folder:
        encoder, decoder = write(sam, Path(folder), precision=precision, deployment_target=deployment_target)
        runtime = CoreMLRuntime(encoder, decoder)
        report = judge(
            "coreml",
            gates_for("coreml", precision),
            reference,
            ask(BundlePredictor(runtime, "any"), PHOTOS, reference),
        )
        figures = report.as_dict()
        ious = report.informative_ious
        return {
            "precision": precision,
            "encoder_mb": size_bytes(encoder) / 1e6,
            "decoder_mb": size_bytes(decoder) / 1e6,
            "psnr_db": min(embedding["psnr_db"] for embedding in figures["embeddings"].values()),
            "cosine": min(embedding.cosine for embedding in report.embeddings),
            "mask_iou_min": min(ious, default=None),
            "mask_iou_mean": statistics.fmean(ious) if ious else None,
            "mask_iou_gate": report.gates.mask_iou.limit,
            "worst": figures["worst_mask"],
            "prompts": figures["prompts"],
            "passed": report.passed,
            "failures": figures["failures"],
            "executed_by": runtime.engine,
        }


def row(figures: dict[str, Any]) -> str:
    """One line of the Markdown table."""
    total = figures["encoder_mb"] + figures["decoder_mb"]
    verdict = "" if figures["passed"] else " **missed**"
    return (
        f"| `{figures['precision']}` | {figures['encoder_mb']:.2f} + {figures['decoder_mb']:.2f} = {total:.2f} "
        f"| {figures['psnr_db']:.1f} | {figures['cosine']:.6f} | {_number(figures['mask_iou_min'])} "
        f"| {_number(figures['mask_iou_mean'])} | {figures['mask_iou_gate']}{verdict} |"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def update_docs(result: dict[str, Any], path: Path = PAGE) -> None:
    """Replace what stands between the two marks."""
    text = path.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"error: {path} must have one {BEGIN} and one {END}; put them where the table belongs")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    weights = result["weights"]
    source = (
        f"Weights {weights['source']} (sha256 {weights['sha256'][:12]}), S = {result['image_size']}, "
        f"{result['deployment_target']}, {result['machine']['cpu']}, coremltools {result['versions']['coremltools']}, "
        f"torch {result['versions']['torch']}; {result['precisions'][0]['executed_by']}."
    )
    table = "\n".join([*HEADER, *map(row, result["precisions"])])
    path.write_text(f"{before}{BEGIN}\n{table}\n\n{source}\n{END}{after}", encoding="utf-8")


def main() -> int:
    """Measure every precision."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python benchmarks/coreml_precision.py --update-docs    (some ten minutes if idle)",
    )
    parser.add_argument("--checkpoint", default="demo", help="official, demo or a path (default: demo)")
    parser.add_argument("--image-size", type=int, default=1024, metavar="S")
    parser.add_argument("--deployment-target", default="iOS17", help="from iOS18 on palettes are grouped")
    parser.add_argument("--precision", action="append", help="only these (repeatable); writes no file")
    parser.add_argument("--update-docs", action="store_true", help="put the table into docs/precision.md")
    arguments = parser.parse_args()
    sam = load_mobile_sam(arguments.checkpoint, arguments.image_size)
    reference = ask(Predictor(sam), PHOTOS)
    print("\n".join(HEADER), flush=True)
    rows = []
    for precision in arguments.precision or ("float32", "float16", *RECIPES):
        rows.append(measure(sam, precision, arguments.deployment_target, reference))
        print(row(rows[-1]), flush=True)
    result = {
        "weights": {"source": sam.weights_source, "sha256": weights_sha256(sam)},
        "image_size": sam.image_size,
        "deployment_target": arguments.deployment_target,
        "photos": [photo.name for photo in PHOTOS],
        "machine": {key: value for key, value in machine().items() if "onnx" not in key},
        "versions": versions_for("coreml"),
        "precisions": rows,
    }
    if not arguments.precision:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"written to {RESULT.relative_to(ROOT)}", file=sys.stderr)
        if arguments.update_docs:
            update_docs(result)
    return 0 if all(figures["passed"] for figures in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
