"""``mobilesam-export export``."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel

from mobilesam_export import app_kit
from mobilesam_export.cli.command import Command
from mobilesam_export.cli.shared import add_judging, add_parts_of_checkpoint, photos_of, quickly_verified
from mobilesam_export.contract import DEFAULT_IMAGE_SIZE
from mobilesam_export.errors import ExportError
from mobilesam_export.options import IMAGE_SIZE, MIN_IOU, MIN_IOU_OF_AUTO, PREFER, VERIFY, Option
from mobilesam_export.precision_plan.plan import read_plans
from mobilesam_export.progress import Progress
from mobilesam_export.targets import named, names
from mobilesam_export.targets.choices import calibrated, left_out, names_beyond_precision, takers_of, targets_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--target", action="append", metavar=f"{{{','.join(names())},all}}",
        help="one or several with commas; repeatable (default: onnx)",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", metavar="PATH|official|demo", help="weights (default: official, else the bundled ones)"
    )
    add_parts_of_checkpoint(parser)
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR", help="the bundle (default: dist)")
    _add_option(parser, {"": IMAGE_SIZE})
    parser.add_argument("--precision", metavar="NAME|TARGET=NAME,...", help=_precisions_in_words())
    parser.add_argument(
        PREFER.flag,
        metavar=f"{{{','.join(map(str, PREFER.choices))}}}",
        help=f"{PREFER.help} (default: {PREFER.default})",
    )
    parser.add_argument(
        "--plan", action="append", type=Path, default=[], metavar="FILE",
        help="repeat what --precision auto has decided: OUT/plan-TARGET.json of its bundle; repeatable",
    )  # fmt: skip
    parser.add_argument(
        VERIFY.flag, nargs="?", const=VERIFY.default,
        metavar=f"{{{','.join(map(str, VERIFY.choices))}}}",
        help=f"{VERIFY.help} (default: {VERIFY.default}; {quickly_verified()} quick)",
    )  # fmt: skip
    parser.add_argument("--no-verify", action="store_true", help="do not compare")
    add_judging(parser)
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR",
        help="photos for --precision auto to decide on, and for the ranges of "
        + ", ".join(f"{target}={name}" for target, precisions in calibrated().items() for name in precisions)
        + " (default: the bundled ones)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace what the bundle already holds")
    parser.add_argument(
        "--with-app-kit", action="store_true",
        help="also write OUT/app-kit: host code, these models and conformance vectors, a folder for each platform",
    )  # fmt: skip
    for name in names_beyond_precision():
        _add_option(parser, dict(takers_of(name)))
    parser.add_argument("--json", action="store_true", help="print the manifest instead of the paths")


def _add_option(parser: argparse.ArgumentParser, takers: dict[str, Option]) -> None:
    """Add an option of the table, described for each target that takes it ("" for all)."""
    option = next(iter(takers.values()))
    whose = ", ".join(takers)
    text = f"{whose}: {option.help}" if whose else option.help
    if option.kind is bool:
        parser.add_argument(option.flag, action="store_true", help=text)
        return
    if option.several:
        names = ",".join(map(str, option.choices))
        parser.add_argument(
            option.flag, dest=option.name, action="append", metavar=f"{{{names}}}", help=f"{text}; repeatable"
        )
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
    return (
        f"{'; '.join(each)}. One for all targets, or one for each: coreml=float16,tflite=int8_dynamic. auto: the "
        f"cheapest whose masks hold {MIN_IOU.flag} with these weights, by default {MIN_IOU_OF_AUTO:g}"
    )


def run(arguments: argparse.Namespace, console: Console, progress: Progress) -> int:
    """Export and print the paths."""
    asked = arguments.target or ["onnx"]
    targets = targets_of(asked)
    image_size = DEFAULT_IMAGE_SIZE if arguments.image_size is None else arguments.image_size
    IMAGE_SIZE.check(image_size)
    from mobilesam_export.jobs import given, plan

    verify = _verify(arguments)
    options: dict[str, Any] = {name: getattr(arguments, name) for name in names_beyond_precision()}
    calibration = None
    if arguments.calibration is not None:
        from mobilesam_export.parity.own_photos import calibration_photos

        calibration = calibration_photos(arguments.calibration)
    if arguments.with_app_kit:
        app_kit.refuse([named(target) for target in targets], list(given(options)), arguments.out, arguments.overwrite)
    plans = read_plans(arguments.plan, targets, image_size)
    verified, min_iou, prefer = verify is not False, arguments.min_iou, arguments.prefer
    plan(targets, arguments.precision, given(options), verified, min_iou, calibration, plans, prefer, image_size)
    if line := left_out(asked):
        console.print(line, soft_wrap=True)
    from mobilesam_export.pipeline import export, notice_of  # imports PyTorch: seconds that --help should not take
    from mobilesam_export.weights_choice import default_checkpoint
    from reference import load_mobile_sam

    photos = photos_of(arguments)
    reason = None
    with progress.step("weights") as step:
        checkpoint = arguments.checkpoint
        if checkpoint is None:
            checkpoint, reason = default_checkpoint()
        sam = load_mobile_sam(
            checkpoint, image_size, decoder=arguments.decoder_checkpoint, key=arguments.checkpoint_key
        )
        step.result = sam.weights_source
    if notice := notice_of(sam.weights_source):
        text = f"{notice}.\n{reason or 'You asked for them.'}"
        console.print(Panel(text, title="NOT THE OFFICIAL WEIGHTS", style="bold yellow"), soft_wrap=False)
    bundle = export(
        sam, targets, arguments.out, precision=arguments.precision, verify=verify,
        min_iou=arguments.min_iou, overwrite=arguments.overwrite, photos=photos,
        calibration=calibration, prefer=arguments.prefer, plans=arguments.plan, progress=progress, **options,
    )  # fmt: skip
    written = bundle.artifacts
    if arguments.with_app_kit:
        written.append(app_kit.write_app_kit(bundle.directory, [named(target) for target in targets], sam, progress))
    if not arguments.quiet:
        from mobilesam_export.bundle.tables import print_manifest

        print_manifest(bundle.manifest, console)
    print(bundle.manifest.to_json() if arguments.json else "\n".join(map(str, written)))
    return 0


def _verify(arguments: argparse.Namespace) -> bool | str:
    """How to verify, True for each target's default; a wish for it beside ``--no-verify`` is refused."""
    if not arguments.no_verify:
        if arguments.verify is not None:
            VERIFY.check(arguments.verify)
        return arguments.verify or True
    for flag, value in ((VERIFY.flag, arguments.verify), ("--photos", arguments.photos)):
        if value is not None:
            raise ExportError(f"got {flag} {value} with --no-verify; leave out one of the two")
    return False


EXPORT = Command(
    "export",
    "write a verified bundle",
    "python export.py --target onnx --checkpoint demo --out dist",
    add_arguments,
    run,
)
