"""MobileSAM (arXiv 2306.14289) in PyTorch: what every export is measured against."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reference.checkpoint import load_mobile_sam as load_mobile_sam
    from reference.checkpoint import save_checkpoint as save_checkpoint
    from reference.embedding_file import EmbeddingFileError as EmbeddingFileError
    from reference.errors import CheckpointError as CheckpointError
    from reference.errors import ImageError as ImageError
    from reference.errors import PromptError as PromptError
    from reference.everything import segment_everything as segment_everything
    from reference.everything_options import EverythingOptions as EverythingOptions
    from reference.found_mask import FoundMask as FoundMask
    from reference.mobile_sam import MobileSam as MobileSam
    from reference.predictor import Predictor as Predictor

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

_HOMES = {
    "CheckpointError": "errors",
    "EmbeddingFileError": "embedding_file",
    "EverythingOptions": "everything_options",
    "FoundMask": "found_mask",
    "ImageError": "errors",
    "MobileSam": "mobile_sam",
    "Predictor": "predictor",
    "PromptError": "errors",
    "load_mobile_sam": "checkpoint",
    "save_checkpoint": "checkpoint",
    "segment_everything": "everything",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: what looks at a file before it is opened must not wait for PyTorch.
    if name in _HOMES:
        return getattr(import_module(f"reference.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'reference' has no attribute {name!r}")
