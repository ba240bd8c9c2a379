"""The command line of everything but training. Artifacts' paths go to stdout, everything else to stderr."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.panel import Panel

from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.chatter import own_stderr
from mobilesam_export.contract import DEFAULT_IMAGE_SIZE
from mobilesam_export.errors import ExportError
from mobilesam_export.options import IMAGE_SIZE, MIN_IOU, VERIFY, Option
from mobilesam_export.progress import ConsoleProgress, Progress
from mobilesam_export.targets import names
from mobilesam_export.targets.choices import calibrated, names_beyond_precision, takers_of, targets_of
from mobilesam_export.version import __version__

if TYPE_CHECKING:
    from mobilesam_export.parity.cases import Photo
    from mobilesam_export.parity.report import ParityReport
    from reference.mobile_sam import MobileSam

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mobilesam-export",
        description="Export MobileSAM for phones, verified against the reference.",
        epilog="example: mobilesam-export export --target onnx --out dist",
    )
    parser.add_argument("--version", action="version", version=f"mobilesam-export {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.add_argument("--debug", action="store_true", help="show the whole trace of an error")
        added.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")
        return added

    _add_export(
        command("export", "write a verified bundle", "python export.py --target onnx --checkpoint demo --out dist")
    )
    verify = command("verify", "check a bundle's files and measure its parity again", "mobilesam-export verify dist")
    verify.add_argument("bundle", type=Path, metavar="DIR")
    verify.add_argument("--checkpoint", help="what it was exported from (default: as the manifest says)")
    _add_parts_of_checkpoint(verify)
    verify.add_argument("--quick", action="store_true", help="one photo with every kind of prompt instead of all")
    _add_judging(verify)
    verify.add_argument("--json", action="store_true", help="print the parity figures as JSON")
    inspect = command("inspect", "show what a bundle holds", "mobilesam-export inspect dist")
    inspect.add_argument("bundle", type=Path, metavar="DIR")
    inspect.add_argument("--json", action="store_true", help="print the manifest")
    _add_segment(
        command(
            "segment",
            "segment photos with a bundle",
            "mobilesam-export segment photo.jpg --bundle dist --target onnx --point 320,240 -o mask.png",
        )
    )
    vectors = command(
        "vectors", "write conformance vectors for host code", "mobilesam-export vectors vectors --bundle dist"
    )
    vectors.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    vectors.add_argument("--bundle", type=Path, metavar="DIR", help="add its S, its slots and its weights' masks")
    vectors.add_argument("--checkpoint", help="what it was exported from (default: as the manifest says)")
    _add_parts_of_checkpoint(vectors)
    convert = command(
        "convert-checkpoint",
        "write a checkpoint in the official layout",
        "mobilesam-export convert-checkpoint run.ckpt mobile_sam.pt",
    )
    convert.add_argument("checkpoint", metavar="IN", help="a path, official or demo")
    convert.add_argument("out", type=Path, metavar="OUT", help="to write: .pt, .pth or .safetensors")
    _add_parts_of_checkpoint(convert)
    convert.add_argument("--float16", action="store_true", help="half the size, rounded weights")
    convert.add_argument("--overwrite", action="store_true", help="replace OUT")
    receipts = command(
        "receipts",
        "check what devices measured and print a table",
        "mobilesam-export receipts pixel.json iphone.json",
    )
    receipts.add_argument("receipts", type=Path, nargs="+", metavar="FILE", help="from an app's measure screen")
    web = command("web", "serve the demo page over a bundle", "mobilesam-export web --bundle dist")
    web.add_argument("--bundle", type=Path, default=Path("dist"), metavar="DIR", help="default: dist")
    web.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    web.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes any free one")
    return parser


def _add_parts_of_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--decoder-checkpoint", metavar="PATH|official|demo",
        help="prompt encoder and mask decoder, where the checkpoint is an image encoder alone",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint-key", metavar="KEY", help="which weights to take where the checkpoint has several, such as ema"
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", action="append", metavar=f"{{{','.join(names())},all}}",
        help="one or several with commas; repeatable (default: onnx)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", metavar="PATH|official|demo", help="weights (default: official, else the bundled ones)"
    )
    _add_parts_of_checkpoint(parser)
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR", help="the bundle (default: dist)")
    _add_option(parser, {"": IMAGE_SIZE})
    parser.add_argument("--precision", metavar="NAME|TARGET=NAME,...", help=_precisions_in_words())
    parser.add_argument(
        VERIFY.flag, nargs="?", const=VERIFY.default, default=VERIFY.default,
        metavar=f"{{{','.join(map(str, VERIFY.choices))}}}", help=f"{VERIFY.help} (default: {VERIFY.default})",
    )  # fmt: skip
    parser.add_argument("--no-verify", dest="verify", action="store_const", const=None, help="do not compare")
    _add_judging(parser)
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR",
        help="photos for the ranges of "
        + ", ".join(f"{target}={name}" for target, precisions in calibrated().items() for name in precisions)
        + " (default: the bundled ones)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace what the bundle already holds")
    for name in names_beyond_precision():
        _add_option(parser, dict(takers_of(name)))
    parser.add_argument("--json", action="store_true", help="print the manifest instead of the paths")


def _add_judging(parser: argparse.ArgumentParser) -> None:
    """What export and verify have in common."""
    parser.add_argument(MIN_IOU.flag, type=float, metavar="X", help=f"{MIN_IOU.help}, 0 to 1")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="verify on the photos in DIR, not the bundled ones")


def _add_option(parser: argparse.ArgumentParser, takers: dict[str, Option]) -> None:
    """Add an option of the table, described for each target that takes it ("" for all)."""
    option = next(iter(takers.values()))
    whose = ", ".join(takers)
    text = f"{whose}: {option.help}" if whose else option.help
    if option.kind is bool:
        parser.add_argument(option.flag, action="store_true", help=text)
        return
    if option.choices:
        metavar = f"{{{','.join(str(choice) for taker in takers.values() for choice in taker.choices)}}}"
    else:
        metavar = "S" if option is IMAGE_SIZE else "N"
        text += f", {option.least:g} to {option.most:g}" + (f", a multiple of {option.step}" if option.step > 1 else "")
    if len({taker.expected for taker in takers.values()}) > 1:
        told = "; ".join(f"{target} {taker.expected}, default {taker.default}" for target, taker in takers.items())
    else:
        each = {target: "any number" if taker.default is None else taker.default for target, taker in takers.items()}
        several = len(set(each.values())) > 1
        told = "default: " + (", ".join(f"{t} {d}" for t, d in each.items()) if several else f"{option.default}")
    parser.add_argument(option.flag, type=option.kind, metavar=metavar, help=f"{text} ({told})")


def _precisions_in_words() -> str:
    """Every target's precisions, for --help."""
    each = [
        f"{target} {option.expected} (default: {option.default})" for target, option in takers_of("precision").items()
    ]
    return f"{'; '.join(each)}. One for all targets, or one for each: coreml=float16,tflite=int8_dynamic"


def _add_segment(parser: argparse.ArgumentParser) -> None:
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


COMMANDS = ("export", "verify", "inspect", "segment", "vectors", "receipts", "web", "convert-checkpoint")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0; 1 for an error, told in one line; 2 for wrong usage; 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    with own_stderr() as terminal:
        return _run_and_tell(arguments, Console(file=terminal, soft_wrap=True))


def _run_and_tell(arguments: argparse.Namespace, console: Console) -> int:
    progress = Progress() if arguments.quiet else ConsoleProgress(console)

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        progress.interrupt()

    # SIGTERM too, so that staging directories go with us.
    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _run(arguments, console, progress)
    except KeyboardInterrupt:
        print(f"error: interrupted; {progress.outcome}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        from mobilesam_export.memory import out_of_memory

        told = out_of_memory(error)
        # The reference's own errors (checkpoint, image, prompt) are ValueErrors with a whole explanation.
        if arguments.debug or (told is None and not isinstance(error, ExportError | ValueError | OSError)):
            raise
        print(f"error: {told or error or type(error).__name__}", file=sys.stderr)
        return EXIT_FAILED
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _run(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    match arguments.command:
        case "export":
            return _export(arguments, console, progress)
        case "verify":
            return _verify(arguments, console, progress)
        case "inspect":
            return _inspect(arguments)
        case "vectors":
            return _vectors(arguments)
        case "receipts":
            return _receipts(arguments)
        case "web":
            return _web(arguments)
        case "convert-checkpoint":
            return _convert_checkpoint(arguments, progress)
    return _segment(arguments)


def _segment(arguments: argparse.Namespace) -> int:
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
            try:
                answer = segment(photo, predictor, request, places)
            except (ExportError, ValueError) as error:
                if not several:
                    raise
                failed += 1  # the others are worth having
                print(f"{photo.name}: {error}", file=sys.stderr)
                continue
            answers.append(answer)
            if not arguments.quiet:
                print(answer.describe(), file=sys.stderr)
            if not arguments.json:
                print(*answer.places.all, sep="\n")
    if arguments.json:
        print(json.dumps([answer.as_dict() for answer in answers], indent=2))
    if failed:
        raise ExportError(f"{failed} of {len(photos)} photos were not segmented, for the reasons above")
    return 0


def _export(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    targets = targets_of(arguments.target or ["onnx"])
    image_size = DEFAULT_IMAGE_SIZE if arguments.image_size is None else arguments.image_size
    IMAGE_SIZE.check(image_size)
    from mobilesam_export.jobs import given, level_of, plan

    level = level_of(arguments.verify)
    options: dict[str, Any] = {name: getattr(arguments, name) for name in names_beyond_precision()}
    calibration = None
    if arguments.calibration is not None:
        from mobilesam_export.parity.own_photos import calibration_photos

        calibration = calibration_photos(arguments.calibration)
    plan(targets, arguments.precision, given(options), level is not None, arguments.min_iou, calibration)
    from mobilesam_export.pipeline import NOTICES, export  # imports PyTorch: seconds that --help should not take
    from mobilesam_export.weights_choice import default_checkpoint
    from reference import load_mobile_sam

    photos = _photos(arguments)
    reason = None
    with progress.step("weights") as step:
        checkpoint = arguments.checkpoint
        if checkpoint is None:
            checkpoint, reason = default_checkpoint()
        sam = load_mobile_sam(
            checkpoint, image_size, decoder=arguments.decoder_checkpoint, key=arguments.checkpoint_key
        )
        step.result = sam.weights_source
    if notice := NOTICES.get(sam.weights_source):
        text = f"{notice}.\n{reason or 'You asked for them.'}"
        console.print(Panel(text, title="NOT THE OFFICIAL WEIGHTS", style="bold yellow"), soft_wrap=False)
    bundle = export(
        sam, targets, arguments.out, precision=arguments.precision, verify=level or False,
        min_iou=arguments.min_iou, overwrite=arguments.overwrite, photos=photos,
        calibration=calibration, progress=progress, **options,
    )  # fmt: skip
    if not arguments.quiet:
        from mobilesam_export.bundle.tables import print_manifest

        print_manifest(bundle.manifest, console)
    print(bundle.manifest.to_json() if arguments.json else "\n".join(map(str, bundle.artifacts)))
    return 0


def _photos(arguments: argparse.Namespace) -> "Sequence[Photo]":
    """The bundled photos, or those of ``--photos``, looked at before any work."""
    from mobilesam_export.parity.cases import PHOTOS
    from mobilesam_export.parity.own_photos import own_photos

    return PHOTOS if arguments.photos is None else own_photos(arguments.photos)


def _model_of(manifest: Manifest, arguments: argparse.Namespace) -> "MobileSam":
    """The model that a bundle was exported from."""
    from reference import load_mobile_sam
    from reference.checkpoint import STAND_IN

    source = manifest.weights.source
    checkpoint = arguments.checkpoint or ("demo" if source == STAND_IN else source)
    if checkpoint not in ("official", "demo") and not Path(checkpoint).is_file():
        raise ExportError(f"the bundle was made from {source}; say where that is with --checkpoint PATH")
    return load_mobile_sam(
        checkpoint, manifest.image_size, decoder=arguments.decoder_checkpoint, key=arguments.checkpoint_key
    )


def _verify(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    from mobilesam_export.pipeline import verify_bundle

    if arguments.min_iou is not None:
        MIN_IOU.check(arguments.min_iou)
    manifest, photos = Manifest.read(arguments.bundle), _photos(arguments)
    reports = verify_bundle(
        arguments.bundle, _model_of(manifest, arguments), progress,
        level="quick" if arguments.quick else "full", min_iou=arguments.min_iou, photos=photos,
    )  # fmt: skip
    if arguments.json:
        print(json.dumps({report.target: report.as_dict() for report in reports}, indent=2))
    else:
        for report in reports:
            print(report.describe())
    failed = [report.target for report in reports if not report.passed]
    if failed:
        raise ExportError(
            f"{', '.join(failed)} does not agree with the reference{_allowed(manifest, failed)}\n"
            f"next: mobilesam-export export --overwrite with another precision or size"
            f"{_least_passing([report for report in reports if not report.passed])}"
        )
    return 0


def _allowed(manifest: Manifest, targets: Sequence[str]) -> str:
    """What a bundle's manifest says of a gate that its exporter lowered; it is said, and does not count."""
    lowered = {
        target: asked
        for target in targets
        if (asked := ((manifest.targets[target].parity or {}).get("judged") or {}).get("min_iou")) is not None
    }
    told = ", ".join(f"{target} with --min-iou {asked:g}" for target, asked in lowered.items())
    return f" (exported by choice: {told})" if told else ""


def _least_passing(failed: "Sequence[ParityReport]") -> str:
    """A ``--min-iou`` with which all of them pass, if there is one."""
    least = [report.passing_min_iou() for report in failed]
    found = [min_iou for min_iou in least if min_iou is not None]
    return f" or, to accept this, --min-iou {min(found):g}" if len(found) == len(least) else ""


def _vectors(arguments: argparse.Namespace) -> int:
    from mobilesam_export.vectors import write_vectors

    print(write_vectors(arguments.out, arguments.bundle, lambda m: _model_of(m, arguments)))
    return 0


def _receipts(arguments: argparse.Namespace) -> int:
    from mobilesam_export.receipts import read_receipt, receipt_table

    print(receipt_table([read_receipt(path) for path in arguments.receipts]))
    return 0


def _web(arguments: argparse.Namespace) -> int:
    from mobilesam_export.web import built_page, is_built, open_server

    if not is_built():
        print("building the page once, with npm", file=sys.stderr)
        built_page()
    with open_server(arguments.bundle, arguments.host, arguments.port) as server:
        print(f"http://{arguments.host}:{server.server_port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0  # Ctrl-C is how it ends
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from mobilesam_export.bundle.tables import print_manifest

    manifest = Manifest.read(arguments.bundle)
    if arguments.json:
        print(manifest.to_json())
    else:
        print_manifest(manifest, Console(file=sys.stdout))
    for entry in manifest.targets.values():
        entry.check_files(arguments.bundle)
    if not arguments.json:
        print("all files are as the manifest says")
    return 0


def _convert_checkpoint(arguments: argparse.Namespace, progress: Progress) -> int:
    import torch

    from reference import load_mobile_sam, save_checkpoint

    if arguments.out.suffix not in (".pt", ".pth", ".safetensors"):
        raise ExportError(f"got OUT {arguments.out}, expected a name that ends in .pt, .pth or .safetensors")
    if arguments.out.exists() and not arguments.overwrite:
        raise ExportError(f"{arguments.out} exists; give another OUT or --overwrite")
    with progress.step("convert checkpoint") as step:
        sam = load_mobile_sam(arguments.checkpoint, decoder=arguments.decoder_checkpoint, key=arguments.checkpoint_key)
        save_checkpoint(sam, arguments.out, torch.float16 if arguments.float16 else torch.float32)
        step.result = sam.weights_source
    print(arguments.out)
    return 0
