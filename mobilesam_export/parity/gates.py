"""The least agreement that is accepted, each number with its reason.

The reference is float32 PyTorch. A float32 artifact differs from it by the order of its sums only; a
float16 one by roundings of 2^-11 in every layer. What is no rounding (a weight, a coordinate, a missing
padding point, a pad colour) lies far outside all of these: ``tests/parity`` proves it for each.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Gate:
    """A limit and why it is there.

    Attributes:
        metric: what is measured, in words.
        limit: least accepted value, or greatest where ``at_most``.
    """

    metric: str
    limit: float
    reason: str
    at_most: bool = False

    def passes(self, value: float) -> bool:
        """NaN never does."""
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(frozen=True)
class Gates:
    """What one precision must reach in every case.

    Attributes:
        mask_iou: at the photo's size, for each informative mask.
        empty_or_full: part of the photo where the masks may differ, if the reference's covers nearly nothing or all.
        informative: part of all masks that must be informative: a gate must not be passed by emptiness.
        enlarging: of an official decoder only, whose masks come at the photo's size.
    """

    mask_iou: Gate
    logits: Gate
    iou_predictions: Gate
    embedding_cosine: Gate
    embedding_psnr_db: Gate
    empty_or_full: Gate
    informative: Gate
    enlarging: Gate

    def all(self) -> dict[str, Gate]:
        """By name, for the manifest."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


_INFORMATIVE = Gate(
    "part of masks that are neither nearly empty nor nearly full",
    0.25,
    "the trained and the stand-in weights give more than half; fewer than a quarter would prove little",
)


_ENLARGING = Gate(
    "error of the masks that the decoder itself enlarges (RMS / std)",
    1e-4,
    "two bilinear steps in float32, whatever the precision of the weights; measured twenty times smaller",
    at_most=True,
)


def _gates(
    mask_iou: tuple[float, str], logits: float, iou: float, cosine: float, psnr_db: float, rounding: str
) -> Gates:
    return Gates(
        Gate("mask IoU", *mask_iou),
        Gate("low-res logits error (RMS / std)", logits, rounding, at_most=True),
        Gate("IoU prediction error", iou, rounding, at_most=True),
        Gate("embedding cosine", cosine, rounding),
        Gate("embedding PSNR (dB)", psnr_db, rounding),
        Gate("differing part of a nearly empty or full mask", 0.002, "an outline one pixel off", at_most=True),
        _INFORMATIVE,
        _ENLARGING,
    )


FLOAT32 = _gates(
    (0.999, "only pixels whose logit is within 1e-4 of zero can flip"),
    logits=1e-3,
    iou=1e-3,
    cosine=0.99999,
    psnr_db=80,
    rounding="another order of float32 sums; measured ten times smaller",
)
FLOAT16 = _gates(
    (0.99, "roundings of float16 move outlines by less than a pixel"),
    logits=0.05,
    iou=0.02,
    cosine=0.99999,
    psnr_db=60,
    rounding="float16 keeps 11 bits; the roundings of some forty layers add up like noise",
)
FLOAT16_WEIGHTS = _gates(
    (0.995, "only the weights are rounded to float16; sums are float32"),
    logits=0.03,
    iou=0.02,
    cosine=0.99999,
    psnr_db=60,
    rounding="each weight is off by at most 2^-12 of itself, and independently",
)


def compressed(mask_iou: float, reason: str) -> Gates:
    """The gates of a compressed precision: its masks are judged, the rest only guards against a broken artifact."""
    return _gates(
        (mask_iou, reason),
        logits=0.7,
        iou=0.3,
        cosine=0.9,
        psnr_db=15,
        rounding="compression is judged by its masks; this only tells a lossy artifact from a broken one",
    )


def with_min_iou(gates: Gates, min_iou: float | None) -> Gates:
    """The gates with the least mask IoU that a user asks for; None asks for nothing.

    Who asks for less than a precision's own limit wants to be told by the masks: the other gates then are those of
    a compressed precision. Who asks for more gets all the precision's gates besides.
    """
    if min_iou is None:
        return gates
    reason = "it was asked for with --min-iou"
    if min_iou < gates.mask_iou.limit:
        return compressed(min_iou, reason)
    return replace(gates, mask_iou=Gate("mask IoU", min_iou, reason))
