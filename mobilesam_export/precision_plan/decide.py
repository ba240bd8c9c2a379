"""From ``auto`` to a precision and its exceptions, with the receipt that goes into the manifest."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from mobilesam_export.jobs import Job, converter_errors
from mobilesam_export.options import MIN_IOU_OF_AUTO
from mobilesam_export.parity.cases import Photo
from mobilesam_export.parity.compare import ask
from mobilesam_export.parity.gates import with_min_iou
from mobilesam_export.parity.report import ParityReport
from mobilesam_export.precision_plan.bench import (
    PhotoBench,
    aim,
    calibration_cases,
    open_journal,
    other_photos,
)
from mobilesam_export.precision_plan.plan import PrecisionPlan
from mobilesam_export.precision_plan.search import Found, search
from mobilesam_export.progress import Progress, megabytes
from mobilesam_export.targets.choices import gates_for
from reference.mobile_sam import MobileSam
from reference.predictor import Predictor

_COSTS_SHOWN = 8


def journal_of(out_dir: Path, target: str) -> Path:
    """Where a search notes its trials: beside the bundle that will be."""
    return out_dir.with_name(f"{out_dir.name}.search-{target}.jsonl")


@dataclass(frozen=True)
class Decision:
    """A job whose precision is decided, and how.

    Attributes:
        others: names of the judging photos that nothing was decided on.
        receipt: for the manifest.
    """

    job: Job
    plan: PrecisionPlan
    others: Sequence[str]
    receipt: Mapping[str, Any]

    def judged(self, report: ParityReport) -> dict[str, Any]:
        """The receipt with what the other photos' masks came to."""
        ious = [iou for case in report.cases if case.photo in self.others for _, iou in case.informative_ious]
        return {
            **self.receipt,
            "judged_on": list(self.others),
            "judged": {"mask_iou_min": min(ious, default=None), "mask_iou_mean": fmean(ious) if ious else None},
        }


def decide(
    sam: MobileSam,
    job: Job,
    out_dir: Path,
    weights: str,
    judging: Sequence[Photo],
    metadata: Mapping[str, str],
    min_iou: float | None,
    progress: Progress,
) -> Decision:
    """Search for the job's precision.

    Args:
        weights: sha256.
        judging: photos that will judge.
        min_iou: the gate; ``MIN_IOU_OF_AUTO`` if None.

    Raises:
        ExportError: no plan holds, or there are no other photos to judge by.
    """
    target, min_iou = job.target, MIN_IOU_OF_AUTO if min_iou is None else min_iou
    calibration = calibration_cases(job.calibration)
    others = other_photos(judging, calibration)
    path = journal_of(out_dir, target.name)
    with progress.step(f"{target.name} auto: decide for {job.prefer}, mask IoU {min_iou:g}") as step:
        journal = open_journal(path, target.name, job.options, weights, sam.image_size, min_iou, calibration)
        with closing(journal), converter_errors(target.name), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the converters' remarks to their own developers
            reference = ask(Predictor(sam), calibration, progress=step.update)
            bench = PhotoBench(sam, target, job.options, calibration, reference, min_iou, metadata, journal, step)
            found = search(target.name, target.searched[job.prefer], bench, smallest=job.prefer == "size")
        trial = found.trial
        exact = f", {len(trial.exceptions)} parts exact" if trial.exceptions else ""
        step.result = f"{trial.precision}{exact}, {megabytes(trial.size_bytes)}; {trial.lowest}; {bench.trials} trials"
    plan = PrecisionPlan(target.name, sam.image_size, trial.precision, trial.exceptions, weights, min_iou)
    gates = with_min_iou(gates_for(target.name, plan.precision), min_iou)
    decided = replace(job, precision=plan.precision, gates=gates, plan=plan, calibration=None)
    return Decision(decided, plan, others, _receipt(found, job.prefer, calibration, min_iou, bench.trials))


def _receipt(found: Found, prefer: str, calibration: Sequence[Photo], min_iou: float, trials: int) -> dict[str, Any]:
    trial = found.trial
    return {
        "prefer": prefer,
        "trials": trials,
        "decided_on": [photo.name for photo in calibration],
        "decided": {
            "aim": aim(min_iou),
            "mask_iou_min": trial.mask_iou_min,
            "mask_iou_mean": trial.mask_iou_mean,
        },
        "size_bytes": trial.size_bytes,
        "tried": [
            {
                "precision": tried.trial.precision,
                "exceptions": len(tried.trial.exceptions),
                "holds": tried.trial.holds,
                "mask_iou_min": tried.trial.mask_iou_min,
                "size_bytes": tried.trial.size_bytes,
                # What rounding one part alone costs: root mean square of the masks' losses of IoU.
                "costliest_parts": {part: loss**0.5 for part, loss in tried.costs[:_COSTS_SHOWN]},
            }
            for tried in found.tried
        ],
    }
