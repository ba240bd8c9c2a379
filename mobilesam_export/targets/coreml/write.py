"""Write MobileSAM as two Core ML packages: ``mobile_sam_encoder.mlpackage`` and ``mobile_sam_decoder.mlpackage``.

Needs coremltools, not a Mac. Coordinates, labels and the points' positional encoding are float32 in every precision;
what else of the float16 decoder is, ``convert`` says.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from timm.models.repvit import RepVit
from torch import nn

from mobilesam_export.contract import DEFAULT_MAX_POINTS, Contract
from mobilesam_export.errors import ExportError
from mobilesam_export.rewrites.parts import part_of
from mobilesam_export.targets.coreml.conv_net import ConvNetEncoderCoreML
from mobilesam_export.targets.coreml.convert import EncoderCoreML, convert_decoder, convert_encoder, target_of
from mobilesam_export.targets.coreml.decoder import PromptDecoderCoreML
from mobilesam_export.targets.coreml.encoder import ImageEncoderCoreML
from mobilesam_export.targets.coreml.executor import MLProgram
from mobilesam_export.targets.coreml.executor.backend import load_coremltools
from mobilesam_export.targets.coreml.executor.headroom import Headroom, measure_headroom
from mobilesam_export.targets.coreml.executor.structure import Form, structure_failures, structure_of
from mobilesam_export.targets.coreml.metadata import annotate, describe
from mobilesam_export.targets.coreml.precision.activations import ActivationRanges, activation_ranges
from mobilesam_export.targets.coreml.precision.compress import compress, compressed_parts
from mobilesam_export.targets.coreml.precision.recipes import RECIPES, CompressionRecipe
from mobilesam_export.targets.coreml.precision.samples import decoder_samples, encoder_samples
from mobilesam_export.targets.coreml.repvit import RepVitEncoderCoreML
from mobilesam_export.targets.coreml.runtime import executed_by
from mobilesam_export.targets.coreml.target import FLEXIBLE_POINTS
from reference.image_encoder import TimmFeatures
from reference.mobile_sam import MobileSam

ENCODER_NAME, DECODER_NAME = "mobile_sam_encoder.mlpackage", "mobile_sam_decoder.mlpackage"
IMAGE_INPUTS = ("image", "tensor")


def write(sam: MobileSam, out_dir: Path, **arguments: Any) -> list[Path]:
    """Convert, compress, describe and save both packages.

    Args:
        sam: the reference, in eval mode.
        out_dir: made if needed; packages of the same names are replaced.
        arguments: of ``draft``.

    Returns:
        The two packages.
    """
    return draft(sam, **arguments).write(out_dir)


def draft(
    sam: MobileSam,
    *,
    precision: str = "float16",
    deployment_target: str = "iOS17",
    image_input: str = "image",
    max_points: int = DEFAULT_MAX_POINTS,
    flexible_points: bool = False,
    calibration: Sequence[Path] | None = None,
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> CoreMLDraft:
    """Make both graphs, for packages of a precision.

    Args:
        sam: the reference, in eval mode.
        precision: ``float32``, ``float16`` or a name in ``recipes.RECIPES``.
        deployment_target: ``iOS16``, ``iOS17`` or ``iOS18``; earlier systems cannot load the packages.
        image_input: ``image`` for a CVPixelBuffer or CGImage, ``tensor`` for a float32 MLMultiArray.
        max_points: slots of the decoder; unused ones are labelled -2.
        flexible_points: take 1 to 16 slots instead (``max_points`` is then the default).
        calibration: photos for 8-bit activations, taken mirrored; the bundled ones if None.
        metadata: user-defined entries for both packages.
        progress: told each step.

    Raises:
        ExportError: an option is unknown.
    """
    load_coremltools()
    target_of(deployment_target)
    recipe = _check(precision, deployment_target, image_input, max_points, flexible_points)
    make: type[EncoderCoreML]
    match sam.image_encoder.body:
        case RepVit():
            make = RepVitEncoderCoreML
        case TimmFeatures():
            make = ConvNetEncoderCoreML
        case _:
            make = ImageEncoderCoreML
    encoder, decoder = make(sam, eight_bit=image_input == "image"), PromptDecoderCoreML(sam)
    entries = {"precision": precision, "deployment_target": deployment_target, **(metadata or {})}
    form = Options(precision, deployment_target, image_input, max_points, flexible_points, recipe, calibration, entries)
    return CoreMLDraft(encoder, decoder, form, progress)


@dataclass(frozen=True)
class Options:
    """What packages are written as; see ``draft``."""

    precision: str
    deployment_target: str
    image_input: str
    max_points: int
    flexible_points: bool
    recipe: CompressionRecipe | None
    calibration: Sequence[Path] | None
    entries: Mapping[str, str]

    @property
    def base(self) -> str:
        """What is converted to, before a recipe compresses it."""
        return self.precision if self.recipe is None else "float16"


class CoreMLDraft:
    """Both graphs, and what writes them in their precision; see ``targets.target.Draft``.

    A recipe's exceptions are left out of the compression; those of plain float16 need another conversion.
    """

    def __init__(
        self,
        encoder: EncoderCoreML,
        decoder: PromptDecoderCoreML,
        form: Options,
        progress: Callable[[str], None],
    ) -> None:
        self.encoder, self.decoder, self.form, self.progress = encoder, decoder, form, progress
        self._converted: dict[str, tuple[frozenset[str], Any]] = {}  # by graph, the last conversion
        self._ranges: ActivationRanges | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """See ``Draft``."""
        recipe = self.form.recipe
        if recipe is not None:
            in_encoder = compressed_parts(self._encoder(frozenset()), self.encoder, recipe)
            in_decoder = compressed_parts(self._decoder(frozenset()), self.decoder, recipe)
        elif self.form.precision == "float16":
            in_encoder, in_decoder = parts_of(self.encoder), parts_of(self.decoder)
        else:
            return ()
        return tuple(part for part in (*in_encoder, *in_decoder) if part not in self.decoder.EXACT)

    def write(self, out_dir: Path, exceptions: Collection[str] = ()) -> list[Path]:
        """See ``Draft``.

        Raises:
            ExportError: the place cannot be written, or a package has not the form that suits the Neural Engine;
                nothing half-written is left.
        """
        form = self.form
        in_encoder = frozenset(exceptions) & {*parts_of(self.encoder)}
        in_decoder = frozenset(exceptions) & {*parts_of(self.decoder)}
        if form.recipe is None:
            encoder, decoder = self._encoder(in_encoder), self._decoder(in_decoder)
        else:
            encoder, decoder = self._encoder(frozenset()), self._decoder(frozenset())
            if form.recipe.activations and self._ranges is None:
                whose = "the bundled" if form.calibration is None else "your"
                self.progress(f"calibrating activations on {whose} photos, mirrored")
                self._ranges = _calibrate(encoder, form.calibration)
            self.progress(f"compressing: {form.recipe.name}")
            encoder = compress(encoder, self.encoder, form.recipe, self._ranges, in_encoder)
            decoder = compress(decoder, self.decoder, form.recipe, exceptions=in_decoder)
        side = self.encoder.image_size
        describe(encoder, "encoder", Contract(side), _version(), form.image_input, form.entries)
        contract = Contract(side, form.max_points)
        describe(decoder, "decoder", contract, _version(), form.image_input, form.entries)
        models = {ENCODER_NAME: encoder, DECODER_NAME: decoder}
        # A decoder of flexible size computes shapes, with gathers.
        promised = {"encoder": self.encoder.form, "decoder": self.decoder.form}
        forms = None if form.flexible_points else promised
        return _save(models, Path(out_dir), forms, self.progress)

    def _encoder(self, exceptions: frozenset[str]) -> Any:
        return self._kept(
            "encoder",
            exceptions,
            lambda: convert_encoder(self.encoder, self.form.base, self.form.deployment_target, exceptions),
        )

    def _decoder(self, exceptions: frozenset[str]) -> Any:
        form, later = self.form, self.form.recipe is not None
        points, flexible = form.max_points, form.flexible_points
        return self._kept(
            "decoder",
            exceptions,
            lambda: convert_decoder(
                self.decoder, form.base, form.deployment_target, points, flexible, later, exceptions
            ),
        )

    def _kept(self, graph: str, exceptions: frozenset[str], convert: Callable[[], Any]) -> Any:
        """The last conversion of a graph if it was with the same exceptions; else a new one."""
        if graph not in self._converted or self._converted[graph][0] != exceptions:
            what = {"encoder": "image encoder", "decoder": "prompt decoder"}[graph]
            self.progress(f"converting the {what} to an ML Program")
            self._converted[graph] = exceptions, convert()
        return self._converted[graph][1]


def parts_of(graph: nn.Module) -> list[str]:
    """All parts of a graph, in the order of its weights."""
    return [part for part in dict.fromkeys(map(part_of, graph.state_dict())) if part]


def notes(paths: Sequence[Path]) -> dict[str, Any]:
    """What the packages are made of and how close they come to float16's limits, for the manifest.

    Warns above half of float16's range.
    """
    encoder_path, decoder_path = paths
    measured = _measure(MLProgram(encoder_path), MLProgram(decoder_path))
    for part, headroom in measured.items():
        for line in headroom.warnings:
            warnings.warn(f"Core ML {part}: {line}", stacklevel=2)
    return {
        "executed_by": executed_by(),
        "structure": {
            "encoder": structure_of(encoder_path).as_dict(),
            "decoder": structure_of(decoder_path).as_dict(),
        },
        "float16_headroom": {part: headroom.as_dict() for part, headroom in measured.items()},
    }


def record_parity(paths: Sequence[Path], summary: str) -> None:
    """Write measured parity into the packages, where Xcode shows it; their hashes change."""
    for path in paths:
        annotate(path, {"parity": f"{summary} ({executed_by()})"})


def _measure(encoder: MLProgram, decoder: MLProgram) -> dict[str, Headroom]:
    """Over one photo and every kind of prompt."""
    side = encoder.inputs["image"].shape[-1]
    assert side is not None
    images = encoder_samples(side, limit=1)
    return {
        "encoder": measure_headroom(encoder, images),
        "decoder": measure_headroom(decoder, decoder_samples(encoder, decoder, images)),
    }


def _calibrate(encoder: Any, photos: Sequence[Path] | None) -> ActivationRanges:
    """Activation ranges of the float16 encoder, which is executed from a saved package like any other."""
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(str(Path(folder) / ENCODER_NAME))
        program = MLProgram(Path(folder) / ENCODER_NAME)
        side = program.inputs["image"].shape[-1]
        assert side is not None
        return activation_ranges(program, encoder_samples(side, photos=photos))


def _check(
    precision: str,
    deployment_target: str,
    image_input: str,
    max_points: int,
    flexible_points: bool,
) -> CompressionRecipe | None:
    """The recipe of a compressed precision, None for a plain one."""
    recipe = RECIPES.get(precision)
    if recipe is None and precision not in ("float16", "float32"):
        raise ExportError(
            f"got precision {precision!r}, expected float32, float16, {', '.join(RECIPES)}; Core ML has no other here"
        )
    if recipe is not None and recipe.activations and deployment_target == "iOS16":
        raise ExportError(
            f"got {precision!r} for iOS16, which has no 8-bit activations; choose --deployment-target iOS17"
        )
    if image_input not in IMAGE_INPUTS:
        raise ExportError(f"got image input {image_input!r}, expected {' or '.join(IMAGE_INPUTS)}")
    low, high = FLEXIBLE_POINTS
    if not low <= max_points <= high and (flexible_points or max_points < 1):
        raise ExportError(f"got {max_points} point slots, expected {low} to {high}; choose fewer")
    return recipe


def _save(
    models: Mapping[str, Any], out_dir: Path, forms: Mapping[str, Form] | None, progress: Callable[[str], None]
) -> list[Path]:
    """Save beside the destination, then move: an interrupted export leaves nothing half-written."""
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".coreml-", dir=out_dir) as folder:
            for name, model in models.items():
                progress(f"saving {name}")
                model.save(str(Path(folder) / name))
                _open_to_all(Path(folder) / name)
            if forms is not None:
                _check_structure(Path(folder), forms)
            for name in models:
                shutil.rmtree(out_dir / name, ignore_errors=True)
                (Path(folder) / name).rename(out_dir / name)
    except OSError as error:
        raise ExportError(
            f"cannot write to {out_dir} ({error.strerror or error}); choose another place with --out"
        ) from error
    return [out_dir / name for name in models]


def _open_to_all(package: Path) -> None:
    """Give the package the permissions of any new file; coremltools keeps weights and specification to their owner."""
    probe = package.parent / "probe"
    probe.mkdir()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.rmdir()
    for path in (package, *package.rglob("*")):
        path.chmod(mode if path.is_dir() else mode & 0o666)


def _check_structure(folder: Path, forms: Mapping[str, Form]) -> None:
    failures = [
        failure
        for part, name in (("encoder", ENCODER_NAME), ("decoder", DECODER_NAME))
        for failure in structure_failures(part, structure_of(folder / name), forms[part])
    ]
    if failures:
        raise ExportError(
            f"the Core ML packages lost their form: {'; '.join(failures)}; try the coremltools of constraints.txt"
        )


def _version() -> str:
    try:
        return version("mobilesam-export")
    except PackageNotFoundError:
        return "0"
