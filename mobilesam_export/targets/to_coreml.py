"""Write MobileSAM as two Core ML packages: ``mobile_sam_encoder.mlpackage`` and ``mobile_sam_decoder.mlpackage``.

Needs coremltools, not a Mac. Coordinates, labels and the points' positional encoding stay float32 in every precision.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mobilesam_export.contract import DEFAULT_MAX_POINTS, Contract
from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreml_backend import load_coremltools
from mobilesam_export.targets.coreml_compress import RECIPES, ActivationRanges, compress
from mobilesam_export.targets.coreml_convert import POINT_RANGE, convert_decoder, convert_encoder, target_of
from mobilesam_export.targets.coreml_metadata import describe
from reference.mobile_sam import MobileSam

ENCODER_NAME, DECODER_NAME = "mobile_sam_encoder.mlpackage", "mobile_sam_decoder.mlpackage"
IMAGE_INPUTS = ("image", "tensor")


def write(
    sam: MobileSam,
    out_dir: Path,
    *,
    precision: str = "float16",
    deployment_target: str = "iOS17",
    image_input: str = "image",
    max_points: int = DEFAULT_MAX_POINTS,
    flexible_points: bool = False,
    activation_ranges: Mapping[str, ActivationRanges] | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Convert, compress, describe and save both packages.

    Args:
        sam: the reference, in eval mode.
        out_dir: made if needed; packages of the same names are replaced.
        precision: ``float32``, ``float16`` or a name in ``coreml_compress.RECIPES``.
        deployment_target: ``iOS16``, ``iOS17`` or ``iOS18``; earlier systems cannot load the packages.
        image_input: ``image`` for a CVPixelBuffer or CGImage, ``tensor`` for a float32 MLMultiArray.
        max_points: slots of the decoder; unused ones are labelled -2.
        flexible_points: take 1 to 16 slots instead (``max_points`` is then the default).
        activation_ranges: for recipes with 8-bit activations: of ``encoder`` and ``decoder``, see precision/coreml.py.
        metadata: user-defined entries for both packages.
        progress: told each step.

    Returns:
        The two packages.

    Raises:
        ExportError: an option is unknown or the place cannot be written; nothing half-written is left.
    """
    load_coremltools()
    target_of(deployment_target)
    recipe = _check(precision, deployment_target, image_input, max_points, flexible_points, activation_ranges)
    base = precision if recipe is None else "float16"
    encoder_contract, decoder_contract = Contract(sam.image_size), Contract(sam.image_size, max_points)
    progress("converting the image encoder to an ML Program")
    encoder = convert_encoder(sam, base, deployment_target, image_input)
    progress("converting the prompt decoder to an ML Program")
    decoder = convert_decoder(sam, base, deployment_target, max_points, flexible_points)
    if recipe is not None:
        progress(f"compressing: {recipe.name}")
        ranges = activation_ranges or {}
        encoder = compress(encoder, recipe, ranges.get("encoder"))
        decoder = compress(decoder, recipe, ranges.get("decoder"))
    entries = {"precision": precision, "deployment_target": deployment_target, **(metadata or {})}
    describe(encoder, "encoder", encoder_contract, _version(), entries)
    describe(decoder, "decoder", decoder_contract, _version(), entries)
    return _save({ENCODER_NAME: encoder, DECODER_NAME: decoder}, Path(out_dir), progress)


def _check(
    precision: str,
    deployment_target: str,
    image_input: str,
    max_points: int,
    flexible_points: bool,
    activation_ranges: Mapping[str, ActivationRanges] | None,
) -> Any:
    """The recipe of a compressed precision, None for a plain one."""
    recipe = RECIPES.get(precision)
    if recipe is None and precision not in ("float16", "float32"):
        raise ExportError(
            f"got precision {precision!r}, expected float32, float16, {', '.join(RECIPES)}; Core ML has no other here"
        )
    if recipe is not None and recipe.activations and deployment_target == "iOS16":
        raise ExportError(f"got {precision!r} for iOS16, which has no 8-bit activations; choose --deployment-target iOS17")
    if recipe is not None and recipe.activations and activation_ranges is None:
        raise ExportError(f"got {precision!r} without activation ranges; calibrate with precision.coreml.calibrate first")
    if image_input not in IMAGE_INPUTS:
        raise ExportError(f"got image input {image_input!r}, expected {' or '.join(IMAGE_INPUTS)}")
    low, high = POINT_RANGE
    if not low <= max_points <= high and (flexible_points or max_points < 1):
        raise ExportError(f"got {max_points} point slots, expected {low} to {high}; choose fewer")
    return recipe


def _save(models: Mapping[str, Any], out_dir: Path, progress: Callable[[str], None]) -> list[Path]:
    """Save beside the destination, then move: an interrupted export leaves nothing half-written."""
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".coreml-", dir=out_dir) as folder:
            for name, model in models.items():
                progress(f"saving {name}")
                model.save(str(Path(folder) / name))
            for name in models:
                shutil.rmtree(out_dir / name, ignore_errors=True)
                (Path(folder) / name).rename(out_dir / name)
    except OSError as error:
        raise ExportError(f"cannot write to {out_dir} ({error.strerror or error}); choose another place with --out") from error
    return [out_dir / name for name in models]


def _version() -> str:
    try:
        return version("mobilesam-export")
    except PackageNotFoundError:
        return "0"
