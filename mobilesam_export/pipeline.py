"""From a checkpoint to a verified bundle: write, run, compare with the reference, and only then move into place."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mobilesam_export import contract, estimates
from mobilesam_export.bundle import failed_export
from mobilesam_export.bundle.described_contract import describe_contract
from mobilesam_export.bundle.destination import look, overlay_name, plan_name, real_directory
from mobilesam_export.bundle.manifest import FileEntry, Manifest, TargetEntry, Weights, versions_for
from mobilesam_export.bundle.predictor import BundlePredictor, load_bundle, open_predictor
from mobilesam_export.bundle.staging import move_into_place, staging_directory
from mobilesam_export.bundle.written import read_written, refuse_other_claims
from mobilesam_export.errors import ExportError, ParityError
from mobilesam_export.jobs import Job, converter_errors, given, level_of, plan
from mobilesam_export.measured_sizes import MeasuredSizes, next_line, refuse_known_misses, ways_out
from mobilesam_export.memory import require_memory_for_export
from mobilesam_export.options import IMAGE_SIZE, MIN_IOU, Value
from mobilesam_export.other_encoders import refuse_other_encoders
from mobilesam_export.overlay import SHEET_PHOTOS, draw_sheet
from mobilesam_export.parity.cases import PHOTOS, QUICK_PHOTO, Photo
from mobilesam_export.parity.compare import Answers, ask, chosen_by_official_rule
from mobilesam_export.parity.gates import with_min_iou
from mobilesam_export.parity.own_photos import calibration_photos, own_photos
from mobilesam_export.parity.report import ParityReport, judge
from mobilesam_export.precision_plan.decide import decide, journal_of
from mobilesam_export.precision_plan.plan import read_plans, refuse_unknown_parts
from mobilesam_export.progress import Progress, megabytes
from mobilesam_export.targets import named, names
from mobilesam_export.targets.choices import AUTO, gates_for, names_beyond_precision, takers_of, targets_of
from reference.checkpoint import JOINED, STAND_IN, weights_sha256
from reference.image_encoder import DEFAULT_BACKBONE
from reference.images import save_picture
from reference.mobile_sam import MobileSam
from reference.predictor import Predictor

NOTICES = {
    "demo": "the bundled demonstration weights: trained here on synthetic scenes, not the official MobileSAM weights",
    STAND_IN: "stand-in random weights: they prove the export and segment nothing",
}
# What was decided held on the calibration photos and did not on others.
MORE_PHOTOS = "--calibration DIR with more photos, such as those that failed, and other ones to judge by"
_HALVES = ("image encoder", "decoder")


@dataclass(frozen=True)
class Bundle:
    """What an export wrote: a directory of artifacts with its manifest."""

    directory: Path
    manifest: Manifest

    @property
    def artifacts(self) -> list[Path]:
        """All artifacts, encoder and decoder of each target."""
        return [self.directory / file.path for entry in self.manifest.targets.values() for file in entry.files]

    def load(self, target: str | None = None) -> BundlePredictor:
        """The reference predictor's interface over one target."""
        return load_bundle(self.directory, target)


def export(
    sam: MobileSam,
    targets: str | Sequence[str] = ("onnx",),
    out_dir: str | Path = "dist",
    *,
    precision: str | Mapping[str, str] | None = None,
    verify: bool | str = True,
    min_iou: float | None = None,
    overwrite: bool = False,
    photos: Sequence[Photo] | str | Path = PHOTOS,
    calibration: Sequence[Path] | str | Path | None = None,
    prefer: str | None = None,
    plans: Sequence[str | Path] = (),
    progress: Progress | None = None,
    **options: Value | None,
) -> Bundle:
    """Export the image encoder and prompt decoder, verify them, and write a bundle.

    Args:
        sam: from ``load_mobile_sam``; its ``image_size`` is the artifacts'.
        targets: names of ``targets.names()``; ``all`` for every one that is installed.
        out_dir: the bundle's directory. Nothing is written there unless everything passed.
        precision: ``float32``, ``float16`` or a recipe of the target, for all targets or in a mapping for each; by
            default float32 for ONNX and TFLite, float16 for Core ML. ``Target.precisions`` has them all. ``auto``
            decides on the weights at hand (``precision_plan``), for masks of at least ``min_iou``, 0.99 by default.
        verify: run the artifacts on real photos and compare them with the reference; ``"full"``: on all, ``"quick"``:
            on one; True is what the target has as its default.
        min_iou: least mask IoU that is accepted, instead of the precision's own gate.
        overwrite: replace targets that the directory already holds.
        photos: what to verify on; a folder's path for the photos in it.
        calibration: photos, or the folder they are in, for precisions with calibrated ranges and for ``auto``; the
            bundled ones if None.
        prefer: what ``auto`` looks for, ``size`` (the default) or ``speed``.
        plans: files that an earlier ``auto`` has written, one a target, to be repeated.
        progress: told of every step.
        options: those of the targets (``opset=17``), each for the targets that take it; ``Target.options`` and
            ``mobilesam-export export --help`` say what they are.

    Raises:
        TypeError: an option that no target has.
        ParityError: listing every failure, if an artifact is not what the reference is; what it answered is then kept
            in ``OUT.failed``.
        ExportError: unknown or missing target, a size known to miss its gate, existing output, full disk.
    """
    if unknown := options.keys() - names_beyond_precision():
        raise TypeError(f"export() got an unexpected keyword argument {min(unknown)!r}")
    out_dir, progress = Path(out_dir).absolute(), progress or Progress()
    directory = real_directory(out_dir)
    IMAGE_SIZE.check(sam.image_size)
    require_memory_for_export(sam.image_size)
    level = level_of(verify)
    if isinstance(calibration, str | Path):
        calibration = calibration_photos(calibration)
    repeated = read_plans([Path(path) for path in plans], targets_of(targets), sam.image_size)
    jobs = plan(
        targets, precision, given(options), level is not None, min_iou, calibration, repeated, prefer, sam.image_size
    )
    refuse_other_encoders(sam, jobs)
    levels = {name: level_of(verify, job.target.verified_by_default) for name, job in jobs.items()}
    bundled, photos = photos is PHOTOS, own_photos(photos) if isinstance(photos, str | Path) else photos
    judging = photos_for(photos, "full" if "full" in levels.values() else level and "quick")
    source = "".join(letter if letter.isprintable() else "?" for letter in sam.weights_source)  # a file may be named so
    weights = Weights(source, weights_sha256(sam), notice_of(sam.weights_source), sam.family)
    table = MeasuredSizes.read().of(weights.sha256)
    if level is not None and bundled:
        measured = [(job.target.name, job.precision) for job in jobs.values() if job.by_default]
        refuse_known_misses(measured, sam.image_size, table, min_iou)
    reports: list[ParityReport] = []
    with staging_directory(directory) as stage:
        found = look(directory, list(jobs), weights.sha256, sam.image_size, overwrite)
        entries = dict(found.kept)
        reference = ask_reference(sam, judging, progress) if level else {}
        metadata = metadata_for(sam, weights)
        for job in jobs.values():
            decision = None
            if job.precision == AUTO:
                decision = decide(sam, job, out_dir, weights.sha256, judging, metadata, min_iou, progress)
                job = decision.job
            entry = write_target(sam, job, stage, metadata, progress)
            if job.plan is not None:
                job.plan.write(stage / plan_name(job.target.name))
            if level:
                used = photos_for(photos, levels[job.target.name])
                expected = answers_on(used, reference)
                answers = ask_bundle(entry, stage, weights.sha256, used, expected, progress)
                report = judge(job.target.name, job.gates, expected_of(entry, expected, used), answers)
                judged = {
                    "level": levels[job.target.name], "photos": "bundled" if bundled else "own", "min_iou": min_iou
                }  # fmt: skip
                entry = replace(entry, parity={**report.as_dict(), "judged": judged})
                if decision is not None:
                    entry = replace(entry, notes={**entry.notes, "decision": decision.judged(report)})
                paths = [stage / file.path for file in entry.files]
                job.target.record_parity(paths, report.summary())
                entry = replace(entry, files=[FileEntry.of(path, stage) for path in paths])
                reports.append(report)
                title = f"{report.summary()}; weights: {weights.source}"
                save_picture(draw_sheet(used[:SHEET_PHOTOS], answers, title), stage / overlay_name(job.target.name))
            entries[job.target.name] = entry
        manifest = Manifest(weights, sam.image_size, {name: entries[name] for name in names() if name in entries})
        if failed := [report.target for report in reports if not report.passed]:
            kept = failed_export.keep(out_dir, stage, {target: report_of(manifest, target) for target in failed})
            ways = ways_of(reports, entries, sam.image_size, table)
            for target, found_ways in ways:
                if jobs[target].precision == AUTO:
                    found_ways.insert(0, MORE_PHOTOS)
            refuse_failures(reports, [kept, next_line(ways)])
        manifest.write(stage)
        if look(directory, list(jobs), weights.sha256, sam.image_size, overwrite) != found:
            raise ExportError(f"{out_dir} was changed while this export ran; nothing was written, export again")
        with progress.held():
            move_into_place(stage, found)
            progress.outcome = f"the bundle is in place at {out_dir}"
    failed_export.forget(out_dir, list(jobs))
    for name in jobs:
        journal_of(out_dir, name).unlink(missing_ok=True)
    return Bundle(out_dir, manifest)


def notice_of(source: str) -> str | None:
    """What has to be said about weights that are not MobileSAM's own, by ``MobileSam.weights_source``."""
    if source in NOTICES:
        return NOTICES[source]
    halves = zip(_HALVES, source.split(JOINED), strict=False)
    return "; ".join(f"its {half} is of {NOTICES[name]}" for half, name in halves if name in NOTICES) or None


def _keywords() -> inspect.Signature:
    """The signature of ``export`` with every target's options by name, for ``help()`` and editors."""
    written = inspect.signature(export)
    *others, _rest = written.parameters.values()
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=next(iter(takers)).type | None)
        for name in names_beyond_precision()
        if (takers := takers_of(name).values())
    ]
    return written.replace(parameters=[*others, *options])


export.__signature__ = _keywords()  # type: ignore[attr-defined]  # mypy's functions have none


def photos_for(photos: Sequence[Photo], level: str | None) -> Sequence[Photo]:
    """What to verify on: all photos, or one of them for ``quick``."""
    if level is None:
        return ()
    if level == "quick":
        return (QUICK_PHOTO,) if photos is PHOTOS else photos[:1]
    return photos


def answers_on(photos: Sequence[Photo], answers: Answers) -> Answers:
    """Those on some of the photos."""
    return {photo.name: answers[photo.name] for photo in photos}


def report_of(manifest: Manifest, target: str) -> dict[str, Any]:
    """What ``OUT.failed`` says about a target: its entry as it would have stood in the manifest, but for the files."""
    entry = manifest.as_dict()["targets"][target]
    return {"weights": asdict(manifest.weights), "image_size": manifest.image_size, **entry, "files": []}


def ways_of(
    reports: Sequence[ParityReport], entries: Mapping[str, TargetEntry], image_size: int, table: MeasuredSizes
) -> list[tuple[str, list[str]]]:
    """For each target that failed, what can be done about it."""
    passed = ",".join(report.target for report in reports if report.passed)
    found = []
    for report in reports:
        if not report.passed:
            ways = ways_out(
                report.target, entries[report.target].precision, image_size, table, report.passing_min_iou()
            )
            found.append((report.target, ways if not passed else [f"--target {passed}, which passed", *ways]))
    return found


def metadata_for(sam: MobileSam, weights: Weights) -> dict[str, str]:
    """What is written into the artifacts themselves."""
    return {
        "contract_version": contract.CONTRACT_VERSION,
        "image_size": str(sam.image_size),
        "weights_source": weights.source,
        "weights_sha256": weights.sha256,
        "pad_colour": str(contract.PAD_COLOUR),
        "pad_colour_8bit": str(contract.PAD_COLOUR_8BIT),
        "point_labels": ", ".join(f"{int(label)} {label.name.lower()}" for label in contract.PointLabel),
        "mask_threshold": str(contract.MASK_THRESHOLD),
        "licence": "Apache-2.0",
        **({} if sam.image_encoder.backbone == DEFAULT_BACKBONE else {"family": sam.family}),
    }


def ask_reference(sam: MobileSam, photos: Sequence[Photo], progress: Progress) -> Answers:
    """The reference's answers, computed once for all targets."""
    with progress.step("reference answers", estimates.REFERENCE.at(sam.image_size, len(photos))) as step:
        answers = ask(Predictor(sam), photos, progress=step.update)
        prompts = sum(len(photo.by_kind) for photo in answers.values())
        step.result = f"{prompts} prompts on {len(photos)} {'photo' if len(photos) == 1 else 'photos'}"
    return answers


def write_target(sam: MobileSam, job: Job, stage: Path, metadata: dict[str, str], progress: Progress) -> TargetEntry:
    """Write one target's artifacts into ``stage/TARGET`` and describe them."""
    target, precision = job.target, job.precision
    directory = stage / target.name
    directory.mkdir()
    expected_s = estimates.seconds_of("write", target.name, precision, sam.image_size)
    with (
        progress.step(f"{target.name} {precision}: write", expected_s) as step,
        converter_errors(target.name),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # the converters' remarks to their own developers
        arguments: dict[str, Any] = {
            "precision": precision, "options": job.options, "calibration": job.calibration,
            "metadata": {**metadata, "precision": precision}, "progress": step.update,
        }  # fmt: skip
        if job.plan is None or not job.plan.exceptions:
            paths = target.write(sam, directory, **arguments)
        else:
            draft = target.draft(sam, **arguments)
            refuse_unknown_parts(job.plan, draft.parts)
            paths = draft.write(directory, job.plan.exceptions)
        files = [FileEntry.of(path, stage) for path in paths]
        shown = ((file.path.removeprefix(f"{target.name}/"), file.size_bytes) for file in files)
        step.result = ", ".join(f"{path} {megabytes(size)}" for path, size in shown)
    notes: dict[str, Any] = {} if job.plan is None else {"plan": job.plan.as_dict()}
    if "report" in target.seconds:
        expected_s = estimates.seconds_of("report", target.name, precision, sam.image_size)
        with progress.step(f"{target.name} {precision}: report", expected_s), converter_errors(target.name):
            notes |= target.notes(paths)
    if job.calibration is not None:
        notes["calibration_photos"] = len(job.calibration)
    versions = versions_for(target.name)
    entry = TargetEntry(target.name, precision, dict(job.options), {}, files, None, versions, notes)
    return replace(entry, contract=describe_contract(sam.image_size, read_written(entry, stage)))


def expected_of(entry: TargetEntry, reference: Answers, photos: Sequence[Photo]) -> Answers:
    """What the reference says to a target's interface: four masks, or the one that a single-mask decoder chooses."""
    return chosen_by_official_rule(reference, photos) if entry.options.get("single_mask") else reference


def ask_bundle(
    entry: TargetEntry,
    directory: Path,
    weights: str,
    photos: Sequence[Photo],
    reference: Answers,
    progress: Progress,
) -> Answers:
    """The artifacts' answers to the same prompts."""
    image_size = entry.contract["image_size"]
    expected_s = estimates.seconds_of("verify", entry.target, entry.precision, image_size, len(photos))
    with progress.step(f"{entry.target} {entry.precision}: verify", expected_s) as step:
        with open_predictor(entry, directory, weights) as predictor:
            answers = ask(predictor, photos, reference, step.update, predictor.runtime.max_points)
        step.result = f"{sum(len(photo.by_kind) for photo in answers.values())} prompts"
    return answers


def verify_bundle(
    directory: str | Path,
    sam: MobileSam,
    progress: Progress | None = None,
    *,
    level: str | None = None,
    min_iou: float | None = None,
    photos: Sequence[Photo] | str | Path = PHOTOS,
) -> list[ParityReport]:
    """Check a bundle's files and measure its parity again.

    Args:
        directory: the bundle.
        sam: the model that it was exported from.
        progress: told of every step.
        level: ``full``, or ``quick`` for one photo; None for each target's default.
        min_iou: least mask IoU that is accepted, instead of each precision's gate. What the bundle was exported with
            does not count: a manifest must not loosen its own gates.
        photos: what to verify on; a folder's path for the photos in it.

    Returns:
        One report a target, whether it passed or not; none for those of ``not_run``.

    Raises:
        ExportError: a damaged file, or another model than the bundle's.
    """
    directory, progress = Path(directory), progress or Progress()
    manifest = Manifest.read(directory)
    runnable = [entry for name, entry in manifest.targets.items() if name not in not_run(manifest)]
    for entry in manifest.targets.values():
        entry.check_files(directory)
    if (got := weights_sha256(sam)) != manifest.weights.sha256:
        raise ExportError(
            f"the bundle was made from other weights ({manifest.weights.source}, sha256 "
            f"{manifest.weights.sha256[:12]}) than {sam.weights_source} ({got[:12]}); give the right --checkpoint"
        )
    if sam.image_size != manifest.image_size:
        raise ExportError(
            f"got a model of image size {sam.image_size}, the bundle's is {manifest.image_size}; load it so"
        )
    for entry in manifest.targets.values():
        refuse_other_claims(entry, directory, manifest.image_size)
    levels = {entry.target: level_of(level or True, named(entry.target).verified_by_default) for entry in runnable}
    photos = own_photos(photos) if isinstance(photos, str | Path) else photos
    if min_iou is not None:
        MIN_IOU.check(min_iou)
    if not runnable:
        return []
    reference = ask_reference(sam, photos_for(photos, "full" if "full" in levels.values() else "quick"), progress)
    reports = []
    for entry in runnable:
        used = photos_for(photos, levels[entry.target])
        expected = answers_on(used, reference)
        gates = with_min_iou(gates_for(entry.target, entry.precision), min_iou)
        answers = ask_bundle(entry, directory, manifest.weights.sha256, used, expected, progress)
        reports.append(judge(entry.target, gates, expected_of(entry, expected, used), answers))
    return reports


def not_run(manifest: Manifest) -> dict[str, str]:
    """Why files of a bundle are not run here, by target; see ``Target.not_run``."""
    reasons = {name: named(name).not_run(entry.options) for name, entry in manifest.targets.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def refuse_failures(reports: Sequence[ParityReport], advice: Sequence[str] = ()) -> None:
    """Raise a ParityError that lists every failure of every target, and then the advice."""
    failed = [report for report in reports if not report.passed]
    if failed:
        raise ParityError("\n".join(["nothing was written:", *(report.describe() for report in failed), *advice]))
