"""Size and accuracy of every Core ML precision, on the bundled photos and every kind of prompt.

    python benchmarks/coreml_precision.py --checkpoint demo --image-size 1024

Prints a Markdown table and writes ``benchmarks/results/coreml_precision.json``. Nothing here is timed.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from mobilesam_export.manifest import size_bytes, versions_for
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.parity.compare import Answers, ask
from mobilesam_export.parity.gates import gates_for
from mobilesam_export.parity.report import judge
from mobilesam_export.precision.coreml import RECIPES
from mobilesam_export.predictor import BundlePredictor
from mobilesam_export.runtimes.coreml import CoreMLRuntime
from mobilesam_export.targets.to_coreml import write
from reference import Predictor, load_mobile_sam
from reference.checkpoint import weights_sha256
from reference.mobile_sam import MobileSam

RESULT = Path(__file__).parent / "results" / "coreml_precision.json"
MEBIBYTE = 2**20


def measure(sam: MobileSam, precision: str, reference: Answers) -> dict[str, Any]:
    """Export, execute, compare."""
    with tempfile.TemporaryDirectory() as folder:
        encoder, decoder = write(sam, Path(folder), precision=precision)
        runtime = CoreMLRuntime(encoder, decoder)
        report = judge(
            "coreml",
            gates_for("coreml", precision, RECIPES),
            reference,
            ask(BundlePredictor(runtime, "any"), PHOTOS, reference),
        )
        figures = report.as_dict()
        ious = [
            iou
            for case in report.cases
            for iou, informative in zip(case.mask_iou, case.informative, strict=True)
            if informative
        ]
        return {
            "precision": precision,
            "encoder_mib": size_bytes(encoder) / MEBIBYTE,
            "decoder_mib": size_bytes(decoder) / MEBIBYTE,
            "psnr_db": min(embedding.psnr_db for embedding in report.embeddings),
            "cosine": min(embedding.cosine for embedding in report.embeddings),
            "mask_iou_min": min(ious, default=None),
            "mask_iou_mean": statistics.fmean(ious) if ious else None,
            "mask_iou_gate": report.gates.mask_iou.limit,
            "worst": figures["worst_mask"],
            "passed": report.passed,
            "executed_by": runtime.engine,
        }


def row(figures: dict[str, Any]) -> str:
    """One line of the Markdown table."""
    total = figures["encoder_mib"] + figures["decoder_mib"]
    return (
        f"| {figures['precision']} | {figures['encoder_mib']:.2f} + {figures['decoder_mib']:.2f} = {total:.2f} "
        f"| {figures['psnr_db']:.1f} | {figures['cosine']:.6f} | {figures['mask_iou_min']:.4f} "
        f"| {figures['mask_iou_mean']:.4f} | {figures['mask_iou_gate']} |"
    )


def main() -> None:
    """Measure every precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--image-size", type=int, default=1024)
    parser.add_argument("--precision", action="append", help="only these (repeatable)")
    arguments = parser.parse_args()
    sam = load_mobile_sam(arguments.checkpoint, arguments.image_size)
    reference = ask(Predictor(sam), PHOTOS)
    print(f"weights {sam.weights_source}, sha256 {weights_sha256(sam)[:12]}, image size {sam.image_size}")
    print("| precision | encoder + decoder, MiB | PSNR dB | cosine | lowest mask IoU | mean mask IoU | gate |")
    print("|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for precision in arguments.precision or ("float32", "float16", *RECIPES):
        rows.append(measure(sam, precision, reference))
        print(row(rows[-1]), flush=True)
    result = {
        "weights": {"source": sam.weights_source, "sha256": weights_sha256(sam)},
        "image_size": sam.image_size,
        "photos": [photo.name for photo in PHOTOS],
        "versions": versions_for("coreml"),
        "precisions": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
