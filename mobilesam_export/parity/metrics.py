"""How far two answers lie apart. The first argument is the reference's, the second the artifact's."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

# A mask below 0.5 % or above 99.5 % of the photo says little: its IoU turns on a few pixels, or cannot fail.
INFORMATIVE_COVERAGE = (0.005, 0.995)


def mask_iou(expected: Mask, got: Mask) -> float:
    """Intersection over union of two (H, W) masks; 1 if both are empty."""
    union = int(np.count_nonzero(expected | got))
    return 1.0 if union == 0 else int(np.count_nonzero(expected & got)) / union


def coverage(mask: Mask) -> float:
    """Part of the (H, W) photo that the mask covers, 0 to 1."""
    return int(np.count_nonzero(mask)) / mask.size


def is_informative(mask: Mask) -> bool:
    """Whether the mask is neither nearly empty nor nearly full."""
    low, high = INFORMATIVE_COVERAGE
    return low <= coverage(mask) <= high


def disagreement(expected: Mask, got: Mask) -> float:
    """Part of the photo, 0 to 1, where two (H, W) masks differ."""
    return int(np.count_nonzero(expected ^ got)) / expected.size


def cosine(expected: Floats, got: Floats) -> float:
    """Cosine between two arrays, flattened; 0 if one is zero or not finite."""
    a, b = expected.ravel().astype(np.float64), got.ravel().astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms > 0 and math.isfinite(norms) else 0.0


def psnr_db(expected: Floats, got: Floats) -> float:
    """Peak signal-to-noise ratio, the peak being the range of ``expected``; infinite if equal, -infinite for NaN."""
    error = float(np.square(expected.astype(np.float64) - got.astype(np.float64)).mean())
    if not math.isfinite(error):
        return -math.inf
    peak = float(expected.max()) - float(expected.min())
    return math.inf if error == 0 else 10 * math.log10(max(peak, 1e-12) ** 2 / error)


def relative_rms_error(expected: Floats, got: Floats) -> float:
    """Root mean square of the difference over the standard deviation of ``expected``; infinite for NaN."""
    error = math.sqrt(float(np.square(expected.astype(np.float64) - got.astype(np.float64)).mean()))
    return error / max(float(expected.std()), 1e-12) if math.isfinite(error) else math.inf


def scaled_error(expected: Floats, got: Floats) -> float:
    """Largest absolute difference, over the largest magnitude of ``expected`` if that is above 1; infinite for NaN."""
    error = float(np.abs(expected.astype(np.float64) - got.astype(np.float64)).max())
    return error / max(1.0, float(np.abs(expected).max())) if math.isfinite(error) else math.inf
