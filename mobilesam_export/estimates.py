"""How long the steps of an export take, roughly, for people who wait: CPU seconds of one thread of an AMD EPYC.

What ``python -m benchmarks.sizes`` has measured is taken from its table; for other sizes there is a line through a few
such figures: time grows with the area of the model frame and the number of photos, on top of tracing and converting,
which does not grow. ``ConsoleProgress`` scales all of it by the first step that it sees.
"""

from mobilesam_export.measured_sizes import MeasuredSizes
from mobilesam_export.parity.cases import PHOTOS
from mobilesam_export.targets import named
from mobilesam_export.targets.target import Cost, Step

REFERENCE = Cost(0.4, 2.3)


def seconds_of(step: Step, target: str, precision: str, image_size: int, photos: int = 1) -> float:
    """Of one step of one target's export.

    Args:
        step: as the table and ``Target.seconds`` call it.
        photos: to be verified on; 1 for the other steps.
    """
    cell = MeasuredSizes.read().cell(target, precision, image_size)  # weights do not change the time
    if cell is None or step not in cell.seconds:
        return named(target).seconds[step].at(image_size, photos)
    return cell.seconds[step] * (photos / len(PHOTOS) if step == "verify" else 1)
