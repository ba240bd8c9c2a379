"""What several commands have in common."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mobilesam_export import targets
from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.errors import ExportError
from mobilesam_export.options import MIN_IOU

if TYPE_CHECKING:
    from mobilesam_export.parity.cases import Photo
    from reference.mobile_sam import MobileSam

Answer = TypeVar("Answer")


def add_parts_of_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Where a checkpoint has only a part of the model, or several models."""
    parser.add_argument(
        "--decoder-checkpoint", metavar="PATH|official|demo",
        help="prompt encoder and mask decoder, where the checkpoint is an image encoder alone",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint-key", metavar="KEY", help="which weights to take where the checkpoint has several, such as ema"
    )


def add_judging(parser: argparse.ArgumentParser) -> None:
    """What export and verify have in common."""
    parser.add_argument(MIN_IOU.flag, type=float, metavar="X", help=f"{MIN_IOU.help}, 0 to 1")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="verify on the photos in DIR, not the bundled ones")


def quickly_verified() -> str:
    """The targets that are verified on one photo unless more is asked for, in words."""
    return " and ".join(target.name for target in targets.ALL if target.verified_by_default == "quick")


def at_least(least: int) -> Callable[[str], int]:
    """A whole number for argparse."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least {least}")
        return value

    return whole_number


def photos_of(arguments: argparse.Namespace) -> "Sequence[Photo]":
    """The bundled photos, or those of ``--photos``, looked at before any work."""
    from mobilesam_export.parity.cases import PHOTOS
    from mobilesam_export.parity.own_photos import own_photos

    return PHOTOS if arguments.photos is None else own_photos(arguments.photos)


def attempt(photo: Path, several: bool, work: Callable[[], Answer]) -> Answer | None:
    """What ``work`` makes of a photo; None if it fails on one of several, which is told: the others are worth having.

    Raises:
        ExportError, ValueError: the failure, if there is only this photo.
    """
    try:
        return work()
    except (ExportError, ValueError) as error:
        if not several:
            raise
        print(f"{photo.name}: {error}", file=sys.stderr)
        return None


def refuse_failed(failed: int, photos: int) -> None:
    """Raise an ExportError if ``attempt`` failed on any of the photos."""
    if failed:
        raise ExportError(f"{failed} of {photos} photos were not segmented, for the reasons above")


def model_of(manifest: Manifest, arguments: argparse.Namespace) -> "MobileSam":
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
