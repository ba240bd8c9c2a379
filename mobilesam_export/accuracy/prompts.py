"""The ways to ask for an object whose mask is known, and how each answer is scored.

``box``
    NVIDIA's protocol: the annotated box, the mask with the highest of all four predicted IoUs.
``click``
    The innermost pixel of the mask; of the three alternatives the one with the highest predicted IoU.
``clicks:N``
    The same, then N - 1 corrections: each adds a click where the mask before is wrong most deeply (object or
    background, as it should be), gives that mask's logits back, and takes the single mask, as SAM's predictor advises.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.accuracy.innermost import innermost
from mobilesam_export.accuracy.truth import Truth, mask_iou
from mobilesam_export.errors import ExportError

if TYPE_CHECKING:  # which brings PyTorch; wrong usage is told without it
    from reference.predictor import BasePredictor

MOST_CLICKS = 100


@dataclass(frozen=True)
class Answer:
    """What a model made of a prompt.

    Attributes:
        iou: of the mask that it chose, with the truth.
        iou_prediction: what it said of that mask.
        best_iou: of the best of its alternatives, which only the truth can tell.
        after: IoU after each click, where there are several.
    """

    iou: float
    iou_prediction: float
    best_iou: float
    after: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For the journal."""
        found = {"iou": self.iou, "iou_prediction": self.iou_prediction, "best_iou": self.best_iou}
        return {**found, "after": self.after} if self.after else found


@dataclass(frozen=True)
class Prompt:
    """One way to ask.

    Attributes:
        name: as on the command line.
        clicks: how many; 0 for a box.
    """

    name: str
    clicks: int

    @property
    def slots(self) -> int:
        """Points, box corners and padding points in its largest prompt."""
        return self.clicks + 1 if self.clicks else 2

    def ask(self, predictor: "BasePredictor", truth: Truth) -> Answer:
        """Ask for an object of the photo that is set."""
        if not self.clicks:
            return _scored(truth, *predictor.predict_every_mask(box=truth.box))
        return _click(predictor, truth, self.clicks)


def prompt_of(text: str) -> Prompt:
    """The prompt of a name.

    Raises:
        ExportError: there is none of that name.
    """
    if text in ("box", "click"):
        return Prompt(text, int(text == "click"))
    kind, _, count = text.partition(":")
    if kind == "clicks" and count.isascii() and count.isdigit() and 1 <= int(count[:4]) <= MOST_CLICKS:
        return Prompt(f"clicks:{int(count)}", int(count))
    raise ExportError(f"got prompt {text!r}, expected box, click, or clicks:N with N from 1 to {MOST_CLICKS}")


def _scored(
    truth: Truth, masks: NDArray[np.bool_], predictions: NDArray[np.float32], _low_res: NDArray[np.float32]
) -> Answer:
    ious = [mask_iou(mask, truth.mask) for mask in masks]
    chosen = int(predictions.argmax())
    return Answer(ious[chosen], float(predictions[chosen]), max(ious))


def _click(predictor: "BasePredictor", truth: Truth, clicks: int) -> Answer:
    x, y, _ = innermost(truth.mask)
    points, labels = [(x, y)], [1]
    masks, predictions, low_res = predictor.predict(points, labels)
    first = _scored(truth, masks, predictions, low_res)
    chosen = int(predictions.argmax())
    mask, logits, prediction, after = masks[chosen], low_res[chosen], float(predictions[chosen]), [first.iou]
    while len(after) < clicks:
        missed, excess = innermost(truth.mask & ~mask), innermost(mask & ~truth.mask)
        x, y, depth = max(missed, excess, key=lambda place: place[2])
        if depth:  # else the mask is the truth, and stays so
            points.append((x, y))
            labels.append(int(missed[2] >= excess[2]))
            masks, predictions, low_res = predictor.predict(points, labels, None, logits[None], multimask_output=False)
            mask, logits, prediction = masks[0], low_res[0], float(predictions[0])
        after.append(mask_iou(mask, truth.mask))
    if clicks == 1:
        return first
    return Answer(after[-1], prediction, max(after), tuple(after))
