"""How long the steps of an export take, roughly, for people who wait: CPU seconds of one thread of an AMD EPYC.

What ``python -m benchmarks.sizes`` has measured is taken from its table; for other sizes there is a line through a few
such figures: time grows with the area of the model frame and the number of photos, on top of tracing and converting,
which does not grow. ``ConsoleProgress`` scales all of it by the first step that it sees.
"""

from dataclasses import dataclass

from mobilesam_export.measured_sizes import MeasuredSizes
from mobilesam_export.parity.cases import PHOTOS


@dataclass(frozen=True)
class Cost:
    """Seconds of a step: ``fixed`` and, for each megapixel of the model frame (and photo, where there are several)."""

    fixed: float
    a_megapixel: float

    def at(self, image_size: int, photos: int = 1) -> float:
        """At a model frame of side ``image_size``."""
        return self.fixed + self.a_megapixel * photos * image_size**2 / 1e6


REFERENCE = Cost(0.4, 2.3)
COSTS = {  # by step, as the table calls it, and target
    "write": {"onnx": Cost(11, 1), "coreml": Cost(6, 2), "tflite": Cost(28, 5)},
    "report": {"onnx": Cost(0, 0), "coreml": Cost(0.3, 4.5), "tflite": Cost(0.5, 0)},
    "verify": {"onnx": Cost(0.3, 2.5), "coreml": Cost(0.7, 2.7), "tflite": Cost(0.3, 2.5)},
}


def seconds_of(step: str, target: str, precision: str, image_size: int, photos: int = 1) -> float:
    """Of one step of one target's export.

    Args:
        step: a key of ``COSTS``.
        photos: to be verified on; 1 for the other steps.
    """
    cell = MeasuredSizes.read().cell(target, precision, image_size)  # weights do not change the time
    if cell is None or step not in cell.seconds:
        return COSTS[step][target].at(image_size, photos)
    return cell.seconds[step] * (photos / len(PHOTOS) if step == "verify" else 1)
