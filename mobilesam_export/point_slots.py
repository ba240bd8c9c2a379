"""The slots of a decoder that holds a fixed number of points and box corners."""

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.contract import PointLabel
from mobilesam_export.errors import ExportError


def fill_slots(
    coords: NDArray[np.floating], labels: NDArray[np.floating], slots: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bring (B, N, 2) coordinates and (B, N) labels to that many slots; those that are left are labelled absent.

    Raises:
        ExportError: N is larger.
    """
    count = labels.shape[1]
    if count > slots:
        raise ExportError(
            f"got {count} point slots (a box takes two, a prompt without box one more), this decoder holds {slots}; "
            "give fewer points or export with a larger --max-points"
        )
    absent = (0, slots - count)
    return (
        np.pad(np.asarray(coords, np.float32), ((0, 0), absent, (0, 0))),
        np.pad(np.asarray(labels, np.float32), ((0, 0), absent), constant_values=float(PointLabel.ABSENT)),
    )
