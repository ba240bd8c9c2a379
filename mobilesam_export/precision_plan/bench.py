"""Write files with exceptions, put calibration photos to them, and note what came out, so that a kill loses nothing."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from mobilesam_export.bundle.checksums import size_bytes
from mobilesam_export.bundle.manifest import versions_for
from mobilesam_export.bundle.predictor import BundlePredictor
from mobilesam_export.errors import ExportError
from mobilesam_export.journal import Journal
from mobilesam_export.parity.cases import PHOTOS, Photo
from mobilesam_export.parity.compare import Answers, ask, chosen_by_official_rule
from mobilesam_export.parity.gates import with_min_iou
from mobilesam_export.parity.own_photos import photo_of
from mobilesam_export.parity.report import judge
from mobilesam_export.precision_plan.search import Trial
from mobilesam_export.progress import Step
from mobilesam_export.targets.choices import gates_for
from mobilesam_export.targets.target import Draft, Target
from reference.mobile_sam import MobileSam

MOST_PHOTOS = 4  # more would take longer than they tell: each has 24 masks
# The lowest of the judging photos' masks is as likely below the calibration photos' as above it, so these must hold
# with a part of the budget to spare.
SPARE = 0.2
_FORM = "mobilesam-precision-search 1"


def calibration_cases(calibration: Sequence[Path] | None) -> tuple[Photo, ...]:
    """The photos to decide on, with their prompts: at most ``MOST_PHOTOS`` of those given, or two bundled ones.

    The other two bundled ones then judge.
    """
    if calibration is None:
        return PHOTOS[:2]
    step = -(-len(calibration) // MOST_PHOTOS)
    return tuple(photo_of(path) for path in calibration[::step])


def other_photos(judging: Sequence[Photo], calibration: Sequence[Photo]) -> list[str]:
    """Names of the judging photos that nothing was decided on.

    Raises:
        ExportError: there is none.
    """
    known = {_sha256(photo) for photo in calibration}
    others = [photo.name for photo in judging if _sha256(photo) not in known]
    if not others:
        raise ExportError(
            "got the same photos to decide on and to judge by, expected other ones; "
            "give other --photos or another --calibration"
        )
    return others


def _sha256(photo: Photo) -> str:
    return hashlib.sha256((photo.directory / photo.file).read_bytes()).hexdigest()


class PhotoBench:
    """``search.Bench`` over a target's drafts.

    Args:
        calibration: photos to decide on.
        reference: its answers to them.
        min_iou: the gate that the judging photos will have.
        metadata: goes into the files.
        journal: where trials are noted.
        step: told what is being tried.

    Attributes:
        trials: how many were measured or found in the journal.
    """

    def __init__(
        self,
        sam: MobileSam,
        target: Target,
        options: Mapping[str, Any],
        calibration: Sequence[Photo],
        reference: Answers,
        min_iou: float,
        metadata: Mapping[str, str],
        journal: Journal,
        step: Step,
    ) -> None:
        self.sam, self.target, self.options, self.metadata = sam, target, options, metadata
        self.calibration, self.journal, self.step = calibration, journal, step
        self.min_iou = aim(min_iou)
        self.single_mask = bool(options.get("single_mask"))
        self.reference = chosen_by_official_rule(reference, calibration) if self.single_mask else reference
        self.trials = 0
        self._noted = {record["trial"]: record for record in journal.records()}
        self._draft: tuple[str, Draft] | None = None

    def draft(self, precision: str) -> Draft:
        """The graphs of a precision; the last one's are kept."""
        if self._draft is None or self._draft[0] != precision:
            self.step.update(f"converting for {precision}")
            draft = self.target.draft(
                self.sam, precision=precision, options=self.options, calibration=None,
                metadata={**self.metadata, "precision": precision}, progress=lambda _: None,
            )  # fmt: skip
            self._draft = precision, draft
        return self._draft[1]

    def parts(self, precision: str) -> Sequence[str]:
        """See ``Bench``."""
        return self.draft(precision).parts

    def size(self, precision: str) -> int:
        """See ``Bench``."""
        with tempfile.TemporaryDirectory() as folder:
            return sum(map(size_bytes, self.draft(precision).write(Path(folder))))

    def measure(self, precision: str, exceptions: Sequence[str], what: str) -> Trial:
        """See ``Bench``."""
        self.step.update(what)
        self.trials += 1
        name = " ".join([precision, *sorted(exceptions)])
        if name in self._noted:
            record = {key: value for key, value in self._noted[name].items() if key != "trial"}
            return Trial(**{**record, "exceptions": tuple(exceptions)})
        with tempfile.TemporaryDirectory() as folder:
            encoder, decoder = self.draft(precision).write(Path(folder), exceptions)
            size = size_bytes(encoder) + size_bytes(decoder)
            with BundlePredictor(self.target.open(encoder, decoder), "", self.single_mask) as predictor:
                answers = ask(predictor, self.calibration, self.reference, max_points=predictor.runtime.max_points)
        gates = with_min_iou(gates_for(self.target.name, precision), self.min_iou)
        report = judge(self.target.name, gates, self.reference, answers)
        ious, failures = report.informative_ious, report.failures
        trial = Trial(
            precision,
            tuple(exceptions),
            min(ious, default=None),
            fmean(ious) if ious else None,
            fmean((1 - iou) ** 2 for iou in ious) if ious else 1.0,
            len(failures),
            str(failures[0]) if failures else None,
            size,
        )
        self.journal.add(name, asdict(trial))
        return trial


def aim(min_iou: float) -> float:
    """What the calibration photos' masks must hold."""
    return 1 - (1 - min_iou) * (1 - SPARE)


def open_journal(
    path: Path, target: str, options: Mapping[str, Any], weights: str, image_size: int, min_iou: float,
    calibration: Sequence[Photo],
) -> Journal:  # fmt: skip
    """The journal of an earlier search for the same thing, or a new one in its place."""
    heading = {
        "target": target,
        "options": dict(options),
        "weights": weights,
        "image_size": image_size,
        "min_iou": min_iou,
        "photos": [_sha256(photo) for photo in calibration],
        "versions": versions_for(target),
    }
    try:
        return Journal(path, heading, form=_FORM, key="trial")
    except ExportError:
        return Journal(path, heading, overwrite=True, form=_FORM, key="trial")
