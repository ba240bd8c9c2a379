"""MobileSAM (arXiv 2306.14289) in PyTorch: what every export is measured against."""

from reference.checkpoint import load_mobile_sam, save_checkpoint
from reference.errors import CheckpointError, ImageError, PromptError
from reference.mobile_sam import MobileSam
from reference.predictor import Predictor

__all__ = [
    "CheckpointError",
    "ImageError",
    "MobileSam",
    "Predictor",
    "PromptError",
    "load_mobile_sam",
    "save_checkpoint",
]
