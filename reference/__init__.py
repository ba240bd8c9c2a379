"""MobileSAM (arXiv 2306.14289) in PyTorch: what every export is measured against."""

from reference.checkpoint import load_mobile_sam, save_checkpoint
from reference.embedding_file import EmbeddingFileError
from reference.errors import CheckpointError, ImageError, PromptError
from reference.everything import EverythingOptions, FoundMask, segment_everything
from reference.mobile_sam import MobileSam
from reference.predictor import Predictor

__all__ = [
    "CheckpointError",
    "EmbeddingFileError",
    "EverythingOptions",
    "FoundMask",
    "ImageError",
    "MobileSam",
    "Predictor",
    "PromptError",
    "load_mobile_sam",
    "save_checkpoint",
    "segment_everything",
]
