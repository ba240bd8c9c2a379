"""Keep embeddings of photos on disk, so that the next prompt, or the next run, does not encode again."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.accuracy.subject import Subject
from reference.embedding_file import EmbeddingFileError


class EmbeddingCache:
    """A folder with a file for each encoder and photo: ``ENCODER/PHOTO.safetensors``, both by their sha256.

    A file takes 4.2 MB at 1024. One that is damaged is made again.
    """

    def __init__(self, directory: Path, subject: Subject) -> None:
        self._directory = directory / hashlib.sha256(subject.encoder.encode()).hexdigest()[:16]
        self._directory.mkdir(parents=True, exist_ok=True)
        self._predictor = subject.predictor

    def set_image(self, pixels: NDArray[np.uint8], photo_sha256: str) -> None:
        """As the predictor's ``set_image``, from the cache where it has the photo."""
        file = self._directory / f"{photo_sha256}.safetensors"
        if file.exists():
            try:
                self._predictor.load_embedding(file)
            except EmbeddingFileError:  # cut short, or of another version: as if there were none
                pass
            else:
                if self._predictor.original_size == pixels.shape[:2]:
                    return
        self._predictor.set_image(pixels)
        self._predictor.save_embedding(file)
