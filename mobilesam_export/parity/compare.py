"""Ask a predictor every case, and lay its answers beside the reference's."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mobilesam_export.parity import metrics
from mobilesam_export.parity.cases import Case, Photo, PromptKind
from reference.predictor import BasePredictor
from reference.transforms import upscale_logits

ROWS = ("single mask", "multi mask 1", "multi mask 2", "multi mask 3")
CHOSEN_ROW = ("chosen mask",)  # of a decoder that returns one mask by itself


@runtime_checkable
class Enlarging(Protocol):
    """A predictor over a decoder that may bring its masks to the photo's size by itself."""

    image_size: int
    original_size: tuple[int, int] | None

    def masks_of_decoder(
        self,
        point_coords: ArrayLike | None,
        point_labels: ArrayLike | None,
        box: ArrayLike | None,
        mask_input: ArrayLike | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """(C, H, W) logits and the (C, S/4, S/4) ones that they come from; None if it does not."""
        ...


@dataclass(frozen=True)
class Answer:
    """What a predictor says to one prompt: the four ``ROWS``, or the one that a single-mask decoder chose.

    Attributes:
        masks: (C, H, W) at the photo's size.
        iou_predictions: (C,).
        low_res_masks: (C, S/4, S/4) logits.
        enlarging_error: of an official decoder's own masks, see ``enlarging_error``; None for other decoders.
    """

    masks: NDArray[np.bool_]
    iou_predictions: NDArray[np.float32]
    low_res_masks: NDArray[np.float32]
    enlarging_error: float | None = None


@dataclass(frozen=True)
class PhotoAnswers:
    """A photo's (1, 256, S/16, S/16) embedding and the answers to its prompts."""

    image_embeddings: NDArray[np.float32]
    by_kind: Mapping[PromptKind, Answer]


Answers = Mapping[str, PhotoAnswers]  # by the photo's name


@dataclass(frozen=True)
class CaseParity:
    """Agreement on one case; tuples have one entry for each of ``rows``.

    Attributes:
        informative: whether the reference's mask is neither nearly empty nor nearly full.
        disagreement: part of the photo, 0 to 1, where the masks differ.
        logits_error: RMS over the reference's standard deviation, of the worst row.
        iou_prediction_error: largest absolute error; in parts of the largest prediction where that is above 1.
        enlarging_error: see ``Answer``.
    """

    photo: str
    kind: PromptKind
    rows: tuple[str, ...]
    mask_iou: tuple[float, ...]
    informative: tuple[bool, ...]
    disagreement: tuple[float, ...]
    logits_error: float
    iou_prediction_error: float
    enlarging_error: float | None = None

    @property
    def informative_ious(self) -> list[tuple[str, float]]:
        """Row and IoU of the masks that say something."""
        masks = zip(self.rows, self.mask_iou, self.informative, strict=True)
        return [(row, iou) for row, iou, informative in masks if informative]


@dataclass(frozen=True)
class EmbeddingParity:
    """Agreement on one photo's embedding."""

    photo: str
    cosine: float
    psnr_db: float


def ask(
    predictor: BasePredictor,
    photos: Sequence[Photo],
    reference: Answers | None = None,
    progress: Callable[[str], None] = lambda _: None,
    max_points: int | None = None,
) -> dict[str, PhotoAnswers]:
    """Put every case to a predictor, through its public interface.

    Args:
        predictor: the reference, or one over artifacts.
        photos: each with its cases.
        reference: the reference's answers, whose logits serve as mask inputs; None if ``predictor`` is the reference.
        progress: told what is being asked.
        max_points: leave out the cases that take more point slots.
    """
    answers: dict[str, PhotoAnswers] = {}
    for photo in photos:
        progress(photo.name)
        predictor.set_image(photo.read())
        assert predictor.image_embeddings is not None
        by_kind: dict[PromptKind, Answer] = {}
        masks_from = by_kind if reference is None else reference[photo.name].by_kind
        for case in photo.cases():
            if max_points is not None and case.slots > max_points:
                continue
            by_kind[case.kind] = _answer(predictor, case, masks_from)
        answers[photo.name] = PhotoAnswers(predictor.image_embeddings, by_kind)
    return answers


def _answer(predictor: BasePredictor, case: Case, masks_from: Mapping[PromptKind, Answer]) -> Answer:
    """Both the single and the multiple masks of one case, or the one that a single-mask decoder gives."""
    mask_input = None if case.mask_from is None else masks_from[case.mask_from].low_res_masks[:1]
    points, labels = (case.points, case.labels) if case.points else (None, None)
    enlarged = None
    if isinstance(predictor, Enlarging) and (own := predictor.masks_of_decoder(points, labels, case.box, mask_input)):
        assert predictor.original_size is not None
        enlarged = enlarging_error(*own, predictor.original_size, predictor.image_size)
    return Answer(*predictor.predict_every_mask(points, labels, case.box, mask_input), enlarged)


def enlarging_error(
    masks: NDArray[np.float32], low_res_masks: NDArray[np.float32], size: tuple[int, int], image_size: int
) -> float:
    """How far masks that a decoder enlarged by itself lie from the host's two bilinear steps.

    Both start from the decoder's own low-res logits, so that the precision of its weights does not matter.

    Args:
        masks: (C, H, W) logits at the photo's (H, W) ``size``.
        low_res_masks: (C, S/4, S/4) logits that they come from.
        size: of the photo.
        image_size: S.

    Returns:
        RMS over the standard deviation, of the worst mask; infinite for another size.
    """
    if masks.shape != (len(low_res_masks), *size):
        return math.inf
    errors = []
    for mask, logits in zip(masks, low_res_masks, strict=True):  # one by one: a phone's photo takes 48 MB each
        expected = upscale_logits(torch.from_numpy(logits[None, None]), size, image_size)
        errors.append(metrics.relative_rms_error(expected[0, 0].numpy(), mask))
    return max(errors)


def chosen_by_official_rule(answers: Answers, photos: Sequence[Photo]) -> dict[str, PhotoAnswers]:
    """Reduce four masks to the one that the official ONNX wrapper's ``return_single_mask`` chooses.

    It prefers the best of rows 1 to 3 for at most two point slots (one click with its padding point, or a
    box alone), and row 0 for more.
    """

    def choose(case: Case, answer: Answer) -> Answer:
        best = int((answer.iou_predictions + (case.slots - 2.5) * np.array([1000, 0, 0, 0])).argmax())
        row = slice(best, best + 1)
        return Answer(answer.masks[row], answer.iou_predictions[row], answer.low_res_masks[row])

    return {
        photo.name: PhotoAnswers(
            answers[photo.name].image_embeddings,
            {case.kind: choose(case, answers[photo.name].by_kind[case.kind]) for case in photo.cases()},
        )
        for photo in photos
    }


def compare_embeddings(expected: Answers, got: Answers) -> list[EmbeddingParity]:
    """One entry a photo."""
    return [
        EmbeddingParity(
            photo,
            metrics.cosine(expected[photo].image_embeddings, got[photo].image_embeddings),
            metrics.psnr_db(expected[photo].image_embeddings, got[photo].image_embeddings),
        )
        for photo in expected
    ]


def compare_masks(expected: Answers, got: Answers) -> list[CaseParity]:
    """One entry a case that was asked."""
    return [
        _compare_case(photo, kind, expected[photo].by_kind[kind], answer)
        for photo, answers in got.items()
        for kind, answer in answers.by_kind.items()
    ]


def _compare_case(photo: str, kind: PromptKind, expected: Answer, got: Answer) -> CaseParity:
    masks = list(zip(expected.masks, got.masks, strict=True))
    logits = zip(expected.low_res_masks, got.low_res_masks, strict=True)
    return CaseParity(
        photo,
        kind,
        ROWS if len(masks) == len(ROWS) else CHOSEN_ROW,
        tuple(metrics.mask_iou(a, b) for a, b in masks),
        tuple(metrics.is_informative(a) for a, _ in masks),
        tuple(metrics.disagreement(a, b) for a, b in masks),
        max(metrics.relative_rms_error(a, b) for a, b in logits),
        metrics.scaled_error(expected.iou_predictions, got.iou_predictions),
        got.enlarging_error,
    )
