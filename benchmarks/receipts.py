"""Target x precision x size: how large, how fast, how close to PyTorch, and how good on scenes nobody trained on.

    python -m benchmarks.receipts           # 1024 and 512, about 25 CPU minutes; an hour with [executorch] and [coreai]
    python -m benchmarks.receipts --target onnx --image-size 512         # a few rows
    python -m benchmarks.receipts --draw                                 # table and plots of what is there

Every row is in receipts.json as soon as it is measured: the same command goes on where it was stopped, and rows of
other weights make way. A row is what ``export`` would have written: its files' size, agreement with PyTorch on the four
bundled photos, and mask IoU with the truth on held-out generated scenes (box and click), also as the difference to
PyTorch's on the same objects, with a bootstrap interval over scenes. Latency (encoder and one click, one thread) is the
median ratio to ONNX float32 of the same size, by turns in one run, and peak memory that of a fresh process; neither
exists for Core ML, which our own executor runs here, nor for Core AI, which Apple's interpreter runs. Where that takes
more than ten minutes a row, the row is of one photo and of the first scenes, and the table says so.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.interleaved import console, interleave, machine, ratio_to
from benchmarks.receipts_drawn import PROMPTS, draw, markdown
from mobilesam_export.accuracy.annotations import read_dataset
from mobilesam_export.accuracy.evaluate import evaluate
from mobilesam_export.accuracy.prompts import prompt_of
from mobilesam_export.accuracy.statistics import mean_with_interval
from mobilesam_export.accuracy.subject import Subject
from mobilesam_export.bundle.manifest import Weights
from mobilesam_export.bundle.predictor import open_predictor
from mobilesam_export.chatter import without_native_chatter
from mobilesam_export.errors import ExportError
from mobilesam_export.jobs import Job, plan
from mobilesam_export.journal import Journal
from mobilesam_export.options import IMAGE_SIZE
from mobilesam_export.parity.cases import PHOTOS, QUICK_PHOTO
from mobilesam_export.parity.report import judge
from mobilesam_export.pipeline import answers_on, ask_bundle, ask_reference, metadata_for, write_target
from mobilesam_export.progress import Progress
from mobilesam_export.targets import named, names
from mobilesam_export.targets.choices import precisions_of, targets_of
from mobilesam_export.targets.target import Runtime
from reference import MobileSam, Predictor, load_mobile_sam
from reference.checkpoint import weights_sha256
from reference.predictor import BasePredictor
from reference.training.scenes.scenes_to_coco import write_coco

SIZES = (1024, 512)
RUN_HERE = ("onnx", "tflite", "executorch")  # by the engine that an app would use
ROUNDS = 7
SLOW = ("int8_static16",)  # LiteRT's desktop CPU runs it on reference kernels, minutes a photo at 1024
FEW_SCENES = 2
PROMPT = np.array([[[300.0, 200.0], [0.0, 0.0]]], np.float32), np.array([[1.0, -1.0]], np.float32)


def measure(sam: MobileSam, job: Job, known: Mapping[str, Any], folder: Path, fastest: Path) -> dict[str, Any]:
    """One row.

    Args:
        known: of this size: the reference's ``answers`` and ``ious``, and the ``scenes``.
        folder: for the files.
        fastest: the folder with ONNX float32 of this size, which others are timed against.
    """
    few = job.target.name == "coreai" and (sam.image_size > 512 or job.precision == "float16")
    photos = (QUICK_PHOTO,) if few else PHOTOS
    weights = Weights(sam.weights_source, weights_sha256(sam))
    entry = write_target(sam, job, folder, metadata_for(sam, weights), Progress())
    reference = answers_on(photos, known["answers"])
    report = judge(job.target.name, job.gates, reference, ask_bundle(entry, folder, "", photos, reference, Progress()))
    ious = report.informative_ious
    encoder, decoder = (folder / entry.path_of(role) for role in ("encoder", "decoder"))
    with open_predictor(entry, folder, weights.sha256) as predictor:
        truth = accuracy(predictor, known["scenes"], FEW_SCENES if few else None)
    row: dict[str, Any] = {
        "target": job.target.name,
        "precision": job.precision,
        "image_size": sam.image_size,
        "encoder_mb": entry.files[0].size_bytes / 1e6,
        "decoder_mb": entry.files[1].size_bytes / 1e6 if len(entry.files) > 1 else None,  # in the encoder's file
        "embedding_psnr_db": min(min(each.psnr_db, 200.0) for each in report.embeddings),
        "mask_iou_min": min(ious),
        "mask_iou_mean": fmean(ious),
        "gate": job.gates.mask_iou.limit,
        "passed": report.passed,
        "photos": len(photos),
        "accuracy": {prompt: figures(truth[prompt], known["ious"][prompt][: len(truth[prompt])]) for prompt in PROMPTS},
        "latency_ratio": None,
        "peak_mb": None,
        "versions": entry.versions,
    }
    if job.target.name in RUN_HERE and job.precision not in SLOW:
        row["latency_ratio"] = ratios(sam.image_size, job, (encoder, decoder), fastest)
        row["peak_mb"] = peak_mb(job.target.name, encoder, decoder)
    return row


def accuracy(predictor: BasePredictor, scenes: Path, limit: int | None = None) -> dict[str, list[list[float]]]:
    """For each prompt, each scene's objects' mask IoU with the truth; of the first ``limit`` scenes."""
    dataset = read_dataset(scenes / "images", scenes / "instances.json")
    points = getattr(getattr(predictor, "runtime", None), "max_points", None)
    subject = Subject(predictor, {}, "", points)
    with tempfile.TemporaryDirectory() as folder, closing(Journal(Path(folder, "ious.jsonl"), {})) as journal:
        measured = evaluate(subject, dataset, [prompt_of(name) for name in PROMPTS], journal, Progress(), limit=limit)
    return {
        prompt: [[entry["answers"][prompt]["iou"] for entry in record["objects"]] for record in measured.records]
        for prompt in PROMPTS
    }


def figures(got: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Mean IoU with the truth, and its difference to the reference's on the same objects, with intervals."""
    scene = np.array([number for number, scene in enumerate(got) for _ in scene])
    ious = np.array([iou for scene in got for iou in scene])
    others = np.array([iou for scene in expected for iou in scene])
    return {
        "objects": len(ious),
        "miou": mean_with_interval(ious, scene),
        "difference": mean_with_interval(ious - others, scene),
    }


def ratios(image_size: int, job: Job, files: tuple[Path, Path], fastest: Path) -> dict[str, float]:
    """How many times as fast as ONNX float32, encoder and decoder apart, by turns."""
    encoder, decoder = sorted(fastest.glob("*.onnx"), reverse=True)
    runtimes: dict[str, Runtime] = {"base": _one_thread("onnx", encoder, decoder)}
    runtimes["this"] = _one_thread(job.target.name, *files)
    image = np.full((1, 3, image_size, image_size), 100, np.float32)
    found = {}
    embedding = runtimes["base"].encode(image)
    parts: dict[str, Callable[[Runtime], object]] = {
        "encoder": lambda runtime: runtime.encode(image),
        "decoder": lambda runtime: runtime.decode(embedding, *PROMPT, None),
    }
    for part, run in parts.items():
        contenders: dict[str, Callable[[], object]] = {
            name: partial(run, runtime) for name, runtime in runtimes.items()
        }
        timings = interleave(contenders, ROUNDS, f"{job.target.name} {job.precision} {part}")
        found[part] = ratio_to(timings, "base", "this")
        found[f"{part}_ms"] = timings["this"].percentile(50)
    return found


def _one_thread(target: str, encoder: Path, decoder: Path) -> Runtime:
    if target == "onnx":
        from mobilesam_export.targets.onnx.runtime import OnnxRuntime

        return OnnxRuntime(encoder, decoder, threads=1)
    if target == "executorch":
        from executorch.extension.pybindings import portable_lib

        from mobilesam_export.targets.executorch.runtime import ExecutorchRuntime

        with without_native_chatter():
            portable_lib._unsafe_reset_threadpool(1)  # of the whole process
        return ExecutorchRuntime(encoder, decoder)
    from mobilesam_export.targets.tflite.runtime import TFLiteRuntime

    return TFLiteRuntime(encoder, decoder, threads=1)


def peak_mb(target: str, encoder: Path, decoder: Path) -> float:
    """What opening both files, one photo and one click add to a fresh process."""
    command = [sys.executable, "-m", "benchmarks.receipts", "--peak", target, str(encoder), str(decoder)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def print_peak(target: str, encoder: Path, decoder: Path) -> None:
    """What ``peak_mb`` starts."""
    import psutil

    from benchmarks.cold_start import forget_peak, peak_bytes

    named(target).load(True)  # the engine's own code is no cost of the model
    forget_peak()
    before = psutil.Process().memory_info().rss
    runtime = _one_thread(target, encoder, decoder)
    side = runtime.image_size
    runtime.decode(runtime.encode(np.full((1, 3, side, side), 100, np.float32)), *PROMPT, None)
    print((peak_bytes() - before) / 1e6)


class Receipts:
    """The file with the rows.

    Args:
        path: receipts.json.
        about: what all rows share; rows of other weights or scenes are dropped.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.about, self.rows = path, about, list[dict[str, Any]]()
        if path.is_file():
            earlier = json.loads(path.read_text())
            if all(earlier["about"].get(key) == about[key] for key in ("weights_sha256", "scenes", "machine")):
                self.rows = earlier["rows"]

    def row(self, target: str, precision: str, image_size: int) -> dict[str, Any] | None:
        """What was measured, or None."""
        asked = [target, precision, image_size]
        return next(
            (row for row in self.rows if [row[k] for k in ("target", "precision", "image_size")] == asked), None
        )

    def add(self, row: dict[str, Any]) -> None:
        """Note a row at once, whole or not at all."""
        self.rows.append(row)
        order = {name: number for number, name in enumerate(names())}
        self.rows.sort(key=lambda row: (-row["image_size"], order[row["target"]], -row["encoder_mb"]))
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(json.dumps({"about": self.about, "rows": self.rows}, indent=1) + "\n")
        part.replace(self.path)


def run(arguments: argparse.Namespace, path: Path) -> Receipts:
    """Measure what is missing."""
    sizes = [int(size) for size in arguments.image_size.split(",")]
    for size in sizes:
        IMAGE_SIZE.check(size)
    sam = load_mobile_sam(arguments.checkpoint, sizes[0])
    here = machine()
    here["date"] = here["date"][:7]  # a table is not begun anew at midnight
    about = {
        "weights": sam.weights_source,
        "weights_sha256": weights_sha256(sam),
        "scenes": {"split": "held-out", "count": arguments.scenes, "objects": arguments.objects},
        "machine": here,
    }
    receipts = Receipts(path, about)
    jobs = []
    for target in targets_of(arguments.target):
        every = [each.name for each in named(target).precisions]
        chosen = every if arguments.precision is None else list(precisions_of(arguments.precision, [target]).values())
        jobs += [plan(target, name, {}, verify=True)[target] for name in chosen]
    for size in sizes:
        missing = [
            job
            for job in jobs
            if receipts.row(job.target.name, job.precision, size) is None and not (job.precision in SLOW and size > 512)
        ]
        if not missing:
            continue
        sam = load_mobile_sam(arguments.checkpoint, size)
        with tempfile.TemporaryDirectory() as folder:
            scenes = paint(Path(folder, "scenes"), arguments.scenes, arguments.objects, size)
            known = {
                "answers": ask_reference(sam, PHOTOS, Progress()),
                "ious": accuracy(Predictor(sam), scenes),
                "scenes": scenes,
            }
            fastest = Path(folder, "float32")
            fastest.mkdir()
            base = plan("onnx", "float32", {}, verify=True)["onnx"]
            write_target(sam, base, fastest, {}, Progress())
            for number, job in enumerate(missing, 1):
                with tempfile.TemporaryDirectory() as files:
                    row = measure(sam, job, known, Path(files), fastest / "onnx")
                receipts.add(row)
                name = f"{job.target.name} {job.precision} at {size}"
                console.print(f"{number} of {len(missing)}: {name}: mask IoU {row['mask_iou_min']:.4f}")
    return receipts


def paint(folder: Path, count: int, objects: int, size: int) -> Path:
    """Held-out scenes as COCO, with the ``objects`` largest of each scene's."""
    write_coco(folder, count, size)
    document = json.loads((folder / "instances.json").read_text())
    largest: dict[int, list[dict[str, Any]]] = {}
    for entry in sorted(document["annotations"], key=lambda entry: -entry["area"]):
        largest.setdefault(entry["image_id"], []).append(entry)
    document["annotations"] = [entry for entries in largest.values() for entry in entries[:objects]]
    (folder / "instances.json").write_text(json.dumps(document))
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, then write table and plots."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.receipts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", default="all", help="one or several with commas (default: all)")
    parser.add_argument("--precision", help="only this one (default: every precision of each target)")
    parser.add_argument("--image-size", default=",".join(map(str, SIZES)), metavar="S,S", help="default: %(default)s")
    parser.add_argument("--checkpoint", default="demo", help="official, demo or a path (default: demo)")
    parser.add_argument("--scenes", type=int, default=10, help="held-out scenes (default: 10)")
    parser.add_argument("--objects", type=int, default=8, help="of a scene at most, the largest (default: 8)")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help="folder for the files")
    parser.add_argument("--draw", action="store_true", help="measure nothing; write table and plots of what is there")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.peak:
        print_peak(arguments.peak[0], *map(Path, arguments.peak[1:]))
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "receipts.json"
    try:
        if arguments.draw:
            written = json.loads(path.read_text())
            about, rows = written["about"], written["rows"]
        else:
            receipts = run(arguments, path)
            about, rows = receipts.about, receipts.rows
    except (ExportError, ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    path.with_suffix(".md").write_text(markdown(about, rows))
    draw(rows, about, path.with_suffix(".png"))
    print(path, path.with_suffix(".md"), path.with_suffix(".png"), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
