"""Everything mode by turns: an ONNX bundle, the reference, and SAM's own generator around the same weights.

    python -m benchmarks.everything                               # 256 points, coffee.png, two threads, minutes
    python -m benchmarks.everything --per-side 8 --image-size 512 --rounds 1

SAM's own is ``SamAutomaticMaskGenerator`` of the package segment-anything (Apache 2.0; ``pip install --no-deps
segment-anything``), with our image encoder and its own prompt encoder and mask decoder; without the package the ratios
are to the reference. The bundled weights predict low IoUs, so the thresholds are lower than SAM's. Masks of two
contenders are the same if their IoU is above 0.999; recall counts the masks of the bundle's whole grid that another
finds, at IoU 0.75 and 0.9: the hierarchical mode is asked with several logits that count as sure. Peak memory is that
of a fresh process beyond what it had before the files were opened.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks import RESULTS
from benchmarks.cold_start import forget_peak, peak_bytes
from benchmarks.interleaved import PHOTO, Timing, console, interleave, machine, ratio_to
from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.parity.metrics import mask_iou
from mobilesam_export.targets.onnx.runtime import OnnxRuntime
from mobilesam_export.targets.onnx.write import write
from reference import MobileSam, Predictor, load_mobile_sam
from reference.checkpoint import weights_sha256
from reference.everything import segment_everything
from reference.everything_options import EverythingOptions
from reference.images import read_image

Masks = list[NDArray[np.bool_]]
SAME = 0.999
RECALLS = (0.75, 0.9)


class SizedEncoder(nn.Module):
    """Our image encoder as segment-anything's ``Sam`` asks for one."""

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        self.encoder, self.img_size = sam.image_encoder, sam.image_size

    def forward(self, image: Tensor) -> Tensor:
        """Map (1, 3, S, S) to (1, 256, S/16, S/16)."""
        embedded: Tensor = self.encoder(image)
        return embedded


def official(sam: MobileSam, options: EverythingOptions) -> Callable[[NDArray[np.uint8]], Masks] | None:
    """SAM's own generator around a model; None if the package is not installed."""
    try:
        from segment_anything import SamAutomaticMaskGenerator  # type: ignore[import-not-found, unused-ignore]
        from segment_anything.modeling import (  # type: ignore[import-not-found, unused-ignore]
            MaskDecoder,
            PromptEncoder,
            Sam,
            TwoWayTransformer,
        )
    except ImportError:
        return None
    side, grid = sam.image_size, sam.image_size // 16
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    model = Sam(
        SizedEncoder(sam),
        PromptEncoder(256, (grid, grid), (side, side), 16),
        MaskDecoder(transformer_dim=256, transformer=transformer, num_multimask_outputs=3),
    )
    for name, part in (("prompt_encoder", sam.prompt_encoder), ("mask_decoder", sam.mask_decoder)):
        getattr(model, name).load_state_dict(part.state_dict())
    generator = SamAutomaticMaskGenerator(
        model.eval(), points_per_side=options.points_per_side, points_per_batch=options.points_per_batch,
        pred_iou_thresh=options.pred_iou_thresh, stability_score_thresh=options.stability_score_thresh,
    )  # fmt: skip
    return lambda photo: [found["segmentation"] for found in generator.generate(photo)]


def frugal(encoder: Path, decoder: Path, threads: int) -> BundlePredictor:
    """A bundle as ``mobilesam-export everything`` opens it."""
    runtime = OnnxRuntime(encoder, decoder, threads=threads)
    runtime.gives_memory_back = True
    return BundlePredictor(runtime, "")


def recall(expected: Masks, got: Masks, least: float) -> float:
    """Part of the expected masks that are among those got."""
    hits = [max((mask_iou(mask, other) for other in got), default=0.0) >= least for mask in expected]
    return sum(hits) / max(1, len(hits))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Times, masks that are the same, recall, peak memory."""
    sam = load_mobile_sam(arguments.checkpoint, arguments.image_size)
    torch.set_num_threads(arguments.threads)
    options = EverythingOptions(
        points_per_side=arguments.per_side,
        pred_iou_thresh=arguments.pred_iou_thresh,
        stability_score_thresh=arguments.stability_score_thresh,
    )
    encoder, decoder = write(sam, folder)
    bundle = frugal(encoder, decoder, arguments.threads)
    reference, photo = Predictor(sam), read_image(arguments.photo)
    kept: dict[str, Masks] = {}

    def asked(name: str, masks: Callable[[], Masks]) -> Callable[[], object]:
        return lambda: kept.__setitem__(name, masks())

    contenders: dict[str, Callable[[], object]] = {}
    if generator := official(sam, options):
        contenders["official"] = asked("official", lambda: generator(photo))
    for name, predictor, chosen in (
        ("reference", reference, options),
        ("onnx", bundle, options),
        *(
            (f"onnx hierarchical {sure:g}", bundle, replace(options, hierarchical=True, sure_logit=sure))
            for sure in arguments.sure_logit
        ),
    ):
        contenders[name] = asked(
            name,
            lambda predictor=predictor, chosen=chosen: [  # type: ignore[misc]
                found.mask for found in segment_everything(predictor, photo, chosen)
            ],
        )
    base = next(iter(contenders))
    timings = interleave(contenders, arguments.rounds, "everything")
    return {
        "weights": sam.weights_source,
        "weights_sha256": weights_sha256(sam),
        "machine": machine(),
        "photo": arguments.photo.name,
        "image_size": arguments.image_size,
        "threads": arguments.threads,
        "points": arguments.per_side**2,
        "thresholds": [options.pred_iou_thresh, options.stability_score_thresh],
        "base": base,
        "contenders": {name: _row(name, base, kept, timings) for name in contenders},
        "peak_mb": peak_mb(encoder, decoder, arguments),
    }


def _row(name: str, base: str, kept: dict[str, Masks], timings: dict[str, Timing]) -> dict[str, Any]:
    return {
        "seconds": timings[name].percentile(50) / 1e3,
        "times_as_fast": ratio_to(timings, base, name),
        "masks": len(kept[name]),
        "same_as_base": recall(kept[base], kept[name], SAME),
        "recall_of_onnx": {str(iou): recall(kept["onnx"], kept[name], iou) for iou in RECALLS},
    }


def peak_mb(encoder: Path, decoder: Path, arguments: argparse.Namespace) -> float:
    """Of a fresh process that opens both files and asks for everything."""
    command = [sys.executable, "-m", "benchmarks.everything", "--peak", str(encoder), str(decoder)]
    command += ["--photo", str(arguments.photo), "--threads", str(arguments.threads)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def print_peak(encoder: Path, decoder: Path, arguments: argparse.Namespace) -> None:
    """What ``peak_mb`` starts; 64 points, since more take no more memory."""
    import psutil

    photo = read_image(arguments.photo)
    forget_peak()
    before = psutil.Process().memory_info().rss
    predictor = frugal(encoder, decoder, arguments.threads)
    segment_everything(predictor, photo, EverythingOptions(8, pred_iou_thresh=0.3, stability_score_thresh=0.6))
    print((peak_bytes() - before) / 1e6)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.everything",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", default="demo", help="official, demo or a path (default: demo)")
    parser.add_argument("--image-size", type=int, default=1024, help="default: 1024")
    parser.add_argument("--per-side", type=int, default=16, help="points a side of the grid (default: 16)")
    parser.add_argument("--photo", type=Path, default=PHOTO, help="default: coffee.png")
    parser.add_argument("--pred-iou-thresh", type=float, default=0.3, help="default: 0.3")
    parser.add_argument("--stability-score-thresh", type=float, default=0.6, help="default: 0.6")
    parser.add_argument(
        "--sure-logit",
        type=float,
        nargs="+",
        default=[2.0, 4.0, 8.5],
        help="of the hierarchical mode (default: 2 4 8.5)",
    )
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder for everything.json")
    parser.add_argument("--peak", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.peak:
        encoder, decoder = arguments.peak
        print_peak(encoder, decoder, arguments)
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    path = arguments.out / "everything.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    for name, row in result["contenders"].items():
        console.print(
            f"{name}: {row['seconds']:.1f} s, {row['times_as_fast']:.2f} times as fast as {result['base']}, "
            f"{row['masks']} masks, {row['same_as_base']:.0%} of its masks the same, recall {row['recall_of_onnx']}"
        )
    console.print(f"peak memory {result['peak_mb']:.0f} MB")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
