"""``mobilesam-export accuracy``."""

import argparse
import json
from contextlib import closing
from pathlib import Path

from rich.console import Console

from mobilesam_export.cli.command import Command
from mobilesam_export.cli.shared import add_parts_of_checkpoint, at_least
from mobilesam_export.contract import DEFAULT_IMAGE_SIZE
from mobilesam_export.errors import ExportError
from mobilesam_export.options import IMAGE_SIZE
from mobilesam_export.progress import Progress
from mobilesam_export.targets import names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="what export wrote")
    parser.add_argument("--target", choices=names(), help="may be left out if the bundle holds one only")
    parser.add_argument("--checkpoint", metavar="PATH|official|demo", help="the PyTorch reference instead of a bundle")
    parser.add_argument(IMAGE_SIZE.flag, type=int, metavar="S", help=f"of a checkpoint (default: {DEFAULT_IMAGE_SIZE})")
    add_parts_of_checkpoint(parser)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the photos")
    parser.add_argument(
        "--annotations", type=Path, metavar="PATH",
        help="JSON of COCO or LVIS, a folder of SA-1B's JSON, or one of mask pictures (default: beside the photos)",
    )  # fmt: skip
    parser.add_argument(
        "--prompt", action="append", metavar="{box,click,clicks:N}", help="repeatable (default: box, as NVIDIA asks)"
    )
    parser.add_argument("--detections", type=Path, metavar="JSON", help="a detector's results for COCO: gives AP too")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="the first N photos")
    parser.add_argument("--workers", type=at_least(1), default=2, metavar="N", help="threads that read photos ahead")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep embeddings there (4.2 MB a photo at 1024)")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("accuracy.json"), metavar="JSON",
        help="the report; beside it each object's figures, from which a killed run goes on (default: accuracy.json)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="begin anew, and replace what exists")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    """Measure and print the report's path."""
    from mobilesam_export.accuracy.prompts import prompt_of

    if (arguments.bundle is None) == (arguments.checkpoint is None):
        raise ExportError("give either a bundle or --checkpoint: one of them is measured")
    if arguments.checkpoint is None and arguments.image_size is not None:
        raise ExportError(f"{IMAGE_SIZE.flag} is of a checkpoint; a bundle has its own")
    if arguments.checkpoint is not None and arguments.target is not None:
        raise ExportError("--target is of a bundle; a checkpoint is measured with the reference")
    if arguments.out.suffix != ".json":
        raise ExportError(f"got --out {arguments.out}, expected a name that ends in .json")
    if arguments.out.exists() and not arguments.out.with_suffix(".jsonl").exists() and not arguments.overwrite:
        raise ExportError(f"{arguments.out} exists; choose another --out, or replace it with --overwrite")
    prompts = list({(prompt := prompt_of(text)).name: prompt for text in arguments.prompt or ["box"]}.values())

    from mobilesam_export.accuracy.annotations import read_dataset
    from mobilesam_export.accuracy.average_precision import require_pycocotools
    from mobilesam_export.accuracy.detections import read_detections

    detections = None
    if arguments.detections is not None:
        require_pycocotools()
        detections = read_detections(arguments.detections)
    dataset = read_dataset(
        arguments.images, arguments.annotations, frozenset() if detections is None else frozenset(detections.of_photo)
    )

    from mobilesam_export.accuracy.embeddings import EmbeddingCache
    from mobilesam_export.accuracy.evaluate import evaluate
    from mobilesam_export.accuracy.report import print_report, report_of
    from mobilesam_export.accuracy.subject import bundle_subject, reference_subject
    from mobilesam_export.journal import Journal

    size = DEFAULT_IMAGE_SIZE if arguments.image_size is None else arguments.image_size
    IMAGE_SIZE.check(size)
    opened = (
        bundle_subject(arguments.bundle, arguments.target)
        if arguments.checkpoint is None
        else reference_subject(arguments.checkpoint, size, arguments.decoder_checkpoint, arguments.checkpoint_key)
    )
    with opened as subject:
        heading = {
            "subject": subject.facts,
            "dataset": {"kind": dataset.kind, "identity": dataset.identity},
            "asked": [prompt.name for prompt in prompts],
            "detections": detections and detections.identity,
        }
        with closing(Journal(arguments.out.with_suffix(".jsonl"), heading, arguments.overwrite)) as journal:
            measured = evaluate(
                subject, dataset, prompts, journal, progress, detections=detections, limit=arguments.limit,
                cache=None if arguments.cache is None else EmbeddingCache(arguments.cache, subject),
                workers=arguments.workers,
            )  # fmt: skip
            report = report_of(measured, dataset, prompts, heading, detections is not None)
    text = json.dumps(report, indent=2)
    part = arguments.out.with_name(arguments.out.name + ".part")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(arguments.out)
    if not arguments.quiet:
        print_report(report, console)
    print(text if arguments.json else arguments.out)
    return 0


ACCURACY = Command(
    "accuracy",
    "measure how good a bundle's masks are on annotated photos",
    "mobilesam-export accuracy dist --images val2017 --annotations instances_val2017.json",
    add_arguments,
    run,
)
