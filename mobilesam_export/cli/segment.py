"""``mobilesam-export segment``."""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from rich.console import Console

from mobilesam_export.cli.command import Command
from mobilesam_export.cli.shared import attempt, refuse_failed
from mobilesam_export.errors import ExportError
from mobilesam_export.progress import Progress
from mobilesam_export.targets import names


def _numbers(text: str, count: int, example: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {count} numbers with commas, such as {example}")
    return numbers


def _point(text: str) -> tuple[float, ...]:
    return _numbers(text, 2, "320,240")


def _box(text: str) -> tuple[float, ...]:
    return _numbers(text, 4, "100,80,420,300")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO", help="a photo, or a folder of them")
    parser.add_argument("--bundle", type=Path, default=Path("dist"), metavar="DIR", help="default: dist")
    parser.add_argument("--target", choices=names(), help="may be left out if the bundle holds one only")
    parser.add_argument("--point", type=_point, action="append", default=[], metavar="X,Y", help="on the object")
    parser.add_argument("--background", type=_point, action="append", default=[], metavar="X,Y", help="not on it")
    parser.add_argument("--box", type=_box, metavar="X0,Y0,X1,Y1", help="around the object")
    parser.add_argument("--mask-input", type=Path, metavar="NPY", help="refine the mask whose --logits these are")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="OUT", help="default: mask.png; of several photos a folder (default: masks)"
    )
    parser.add_argument("--all-masks", action="store_true", help="write the three alternatives too: OUT-1.png to -3")
    parser.add_argument("--cutout", type=Path, metavar="PNG", help="the object on a transparent ground")
    parser.add_argument("--logits", type=Path, metavar="NPY", help="the mask before the threshold, for --mask-input")
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")
    parser.add_argument("--json", action="store_true", help="print scores, the chosen mask and paths as JSON")


def run(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    """Segment and print what was written."""
    from mobilesam_export.bundle.predictor import load_bundle
    from mobilesam_export.segment import Request, photos_in, plan, segment

    points = [(x, y, label) for label, given in ((1, arguments.point), (0, arguments.background)) for x, y in given]
    request = Request(points, arguments.box, arguments.mask_input, arguments.all_masks)
    if not points and arguments.box is None and arguments.mask_input is None:
        raise ExportError("got no prompt; give --point X,Y, --box X0,Y0,X1,Y1 or --mask-input NPY")
    photos = photos_in(arguments.photos)
    several = len(photos) > 1 or any(path.is_dir() for path in arguments.photos)
    if several and arguments.mask_input is not None:
        raise ExportError(f"--mask-input belongs to one photo, got {len(photos)}; segment that one by itself")
    planned = plan(
        photos, arguments.out, several, cutout=arguments.cutout, logits=arguments.logits,
        all_masks=arguments.all_masks, overwrite=arguments.overwrite,
    )  # fmt: skip
    answers, failed = [], 0
    with load_bundle(arguments.bundle, arguments.target) as predictor:
        for photo, places in zip(photos, planned, strict=True):
            answer = attempt(photo, several, partial(segment, photo, predictor, request, places))
            if answer is None:
                failed += 1
                continue
            answers.append(answer)
            if not arguments.quiet:
                print(answer.describe(), file=sys.stderr)
            if not arguments.json:
                print(*answer.places.all, sep="\n")
    if arguments.json:
        print(json.dumps([answer.as_dict() for answer in answers], indent=2))
    refuse_failed(failed, len(photos))
    return 0


SEGMENT = Command(
    "segment",
    "segment photos with a bundle",
    "mobilesam-export segment photo.jpg --bundle dist --target onnx --point 320,240 -o mask.png",
    add_arguments,
    run,
)
