"""Judge what was measured: every failure, the worst case by name, and the figures for the manifest."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from mobilesam_export.parity.cases import PromptKind
from mobilesam_export.parity.compare import (
    Answers,
    CaseParity,
    EmbeddingParity,
    compare_embeddings,
    compare_masks,
)
from mobilesam_export.parity.gates import Gate, Gates, with_min_iou

_LEAST_SENSIBLE_IOU = 0.5  # whose masks agree less than that is broken, not coarse
_PSNR_OF_EQUALS_DB = 200.0  # JSON knows no infinity


@dataclass(frozen=True)
class Failure:
    """One value on the wrong side of its gate."""

    where: str
    value: float
    gate: Gate

    def __str__(self) -> str:
        relation = ">" if self.gate.at_most else "<"
        return f"{self.where}: {self.gate.metric} {self.value:.5g} {relation} {self.gate.limit:g}"


@dataclass(frozen=True)
class WorstMask:
    """The informative mask with the lowest IoU."""

    photo: str
    kind: PromptKind
    row: str
    mask_iou: float

    def __str__(self) -> str:
        return f"{self.mask_iou:.5f} ({self.photo}, {self.kind}, {self.row})"


@dataclass(frozen=True)
class ParityReport:
    """Everything measured about one target's artifacts, and the gates it is judged by."""

    target: str
    gates: Gates
    embeddings: Sequence[EmbeddingParity]
    cases: Sequence[CaseParity]

    @property
    def passed(self) -> bool:
        """Whether every value passes its gate."""
        return not self.failures

    @property
    def worst(self) -> WorstMask | None:
        """None if no mask is informative."""
        masks = [
            WorstMask(case.photo, case.kind, row, iou) for case in self.cases for row, iou in case.informative_ious
        ]
        return min(masks, key=lambda mask: mask.mask_iou, default=None)

    @property
    def informative_ious(self) -> list[float]:
        """Of all masks that say something."""
        return [iou for case in self.cases for _, iou in case.informative_ious]

    @property
    def informative(self) -> float:
        """Part of all masks that are informative."""
        return fmean(fmean(case.informative) for case in self.cases) if self.cases else 0.0

    @property
    def failures(self) -> list[Failure]:
        """All of them, mask by mask."""
        return [failure for failure in self._checks() if not failure.gate.passes(failure.value)]

    def _checks(self) -> Iterator[Failure]:
        yield Failure("all photos", self.informative, self.gates.informative)
        for embedding in self.embeddings:
            yield Failure(embedding.photo, embedding.cosine, self.gates.embedding_cosine)
            yield Failure(embedding.photo, embedding.psnr_db, self.gates.embedding_psnr_db)
        for case in self.cases:
            where = f"{case.photo}, {case.kind}"
            for i, row in enumerate(case.rows):
                if case.informative[i]:
                    yield Failure(f"{where}, {row}", case.mask_iou[i], self.gates.mask_iou)
                else:
                    yield Failure(f"{where}, {row}", case.disagreement[i], self.gates.empty_or_full)
            yield Failure(where, case.logits_error, self.gates.logits)
            yield Failure(where, case.iou_prediction_error, self.gates.iou_predictions)
            if case.enlarging_error is not None:
                yield Failure(where, case.enlarging_error, self.gates.enlarging)

    def summary(self) -> str:
        """One line: passed or how many failures, and the worst mask by name."""
        failures = len(self.failures)
        verdict = "passed" if not failures else f"FAILED in {failures} of {sum(1 for _ in self._checks())} checks"
        return f"{self.target} parity {verdict}; lowest mask IoU {self.worst or 'unknown: no mask is informative'}"

    def describe(self) -> str:
        """The summary, then every failure on its own line, under the gate that it missed."""
        lines = [self.summary()]
        for gate in self.gates.all().values():
            failures = [failure for failure in self.failures if failure.gate is gate]
            if failures:
                bound = "at most" if gate.at_most else "at least"
                lines.append(f"  {gate.metric}: {bound} {gate.limit:g}, for {gate.reason}")
                lines += [f"    {failure.value:.5g}  {failure.where}" for failure in failures]
        return "\n".join(lines)

    def passing_min_iou(self) -> float | None:
        """The greatest ``--min-iou``, in thousandths, with which this passes; None if none does or none makes sense."""
        if self.worst is None:
            return None
        min_iou = math.floor(self.worst.mask_iou * 1000) / 1000
        passes = replace(self, gates=with_min_iou(self.gates, min_iou)).passed
        return min_iou if passes and min_iou >= _LEAST_SENSIBLE_IOU else None

    def as_dict(self) -> dict[str, Any]:
        """For the manifest: figures per photo and prompt kind, the gates, the worst case, every failure."""
        worst = self.worst
        return {
            "passed": self.passed,
            "failures": [str(failure) for failure in self.failures],
            "worst_mask": None
            if worst is None
            else {"photo": worst.photo, "prompt": str(worst.kind), "mask": worst.row, "mask_iou": worst.mask_iou},
            "informative_masks": self.informative,
            "embeddings": {
                embedding.photo: {
                    "cosine": embedding.cosine,
                    "psnr_db": max(-_PSNR_OF_EQUALS_DB, min(embedding.psnr_db, _PSNR_OF_EQUALS_DB)),
                }
                for embedding in self.embeddings
            },
            "prompts": {str(kind): self._figures(kind) for kind in PromptKind if self._of(kind)},
            "gates": {name: gate.limit for name, gate in self.gates.all().items()},
        }

    def _of(self, kind: PromptKind) -> list[CaseParity]:
        return [case for case in self.cases if case.kind == kind]

    def _figures(self, kind: PromptKind) -> dict[str, float | int | None]:
        cases = self._of(kind)
        ious = [iou for case in cases for _, iou in case.informative_ious]
        enlarging = [case.enlarging_error for case in cases if case.enlarging_error is not None]
        return {
            "masks": sum(len(case.mask_iou) for case in cases),
            "informative_masks": len(ious),
            "mask_iou_min": min(ious, default=None),
            "mask_iou_mean": fmean(ious) if ious else None,
            "logits_error_max": _finite(max(case.logits_error for case in cases)),
            "iou_prediction_error_max": _finite(max(case.iou_prediction_error for case in cases)),
            **({"enlarging_error_max": _finite(max(enlarging))} if enlarging else {}),
        }


def _finite(value: float) -> float:
    return min(value, 1e30)


def judge(target: str, gates: Gates, expected: Answers, got: Answers) -> ParityReport:
    """Compare a target's answers with the reference's."""
    return ParityReport(target, gates, compare_embeddings(expected, got), compare_masks(expected, got))
