"""How long the steps of an export take, roughly, for people who wait.

CPU seconds of one thread of an AMD EPYC; ``ConsoleProgress`` scales
them by the first step that it sees, so that what matters is how the steps compare. Time grows with the area of the
model frame and the number of photos; what does not grow is tracing and converting the graphs.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Seconds of a step: ``fixed`` and, for each megapixel of the model frame (and photo, where there are several)."""

    fixed: float
    a_megapixel: float

    def at(self, image_size: int, photos: int = 1) -> float:
        """At a model frame of side ``image_size``."""
        return self.fixed + self.a_megapixel * photos * image_size**2 / 1e6


REFERENCE = Cost(0.5, 2.5)
WRITE = {"onnx": Cost(10, 5), "coreml": Cost(6, 10), "tflite": Cost(28, 5)}
REPORT = {"onnx": Cost(0, 0), "coreml": Cost(1, 10), "tflite": Cost(0.5, 0)}
VERIFY = {"onnx": Cost(0.5, 1), "coreml": Cost(1, 45), "tflite": Cost(0.5, 1)}
