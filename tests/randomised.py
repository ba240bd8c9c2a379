"""Models whose every weight matters: random affines, biases, BatchNorm statistics and attention biases."""

from reference.checkpoint import stand_in_mobile_sam
from reference.mobile_sam import MobileSam


def randomised_sam(seed: int = 0, image_size: int = 224) -> MobileSam:
    """MobileSAM on stand-in weights; with the default initialisation a wrong fold goes unnoticed."""
    return stand_in_mobile_sam(image_size, seed)
