"""Keep an image embedding in a file: safetensors with a version, so that a wrong or old one is refused, not misread."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from reference.regular_file import regular_file_size

FORMAT = "mobilesam-embedding"
VERSION = "1"
LARGEST = 2**30  # bytes; 4.2 MB at 1024
LONGEST_SIDE = 2**17  # pixels


class EmbeddingFileError(ValueError):
    """A file that holds no embedding usable here."""


def save(
    path: str | Path, embeddings: NDArray[np.float32], original_size: tuple[int, int], image_size: int, weights: str
) -> None:
    """Write an embedding whole or not at all.

    Args:
        path: where to.
        embeddings: (1, 256, S/16, S/16).
        original_size: (H, W) of the photo.
        image_size: S.
        weights: identity of the weights that made it.

    Raises:
        OSError: if the disk is full or the place cannot be written; what was there stays.
    """
    path = Path(path)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "original_height": str(original_size[0]),
        "original_width": str(original_size[1]),
        "image_size": str(image_size),
        "weights": weights,
    }
    part = path.with_name(path.name + ".part")
    try:
        save_file({"image_embeddings": np.ascontiguousarray(embeddings, np.float32)}, part, metadata)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise OSError(f"could not write {path} ({error}); free some disk or give another place") from error
    finally:
        part.unlink(missing_ok=True)


def load(path: str | Path, image_size: int, weights: str) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """Read what ``save`` wrote.

    Returns:
        (1, 256, S/16, S/16) embeddings and the photo's (H, W).

    Raises:
        EmbeddingFileError: missing, truncated, no such file, another version, image size or other weights.
    """
    shape = [1, 256, image_size // 16, image_size // 16]
    regular_file_size(path, "file of an embedding", LARGEST, EmbeddingFileError)
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            _check_metadata(path, metadata, image_size, weights)
            tensor = file.get_slice("image_embeddings")  # the header alone: nothing of a wrong size is read
            if tensor.get_dtype() != "F32" or tensor.get_shape() != shape:
                raise EmbeddingFileError(
                    f"{path} holds {tensor.get_dtype()} {tensor.get_shape()}, expected F32 {shape}; make it again with "
                    "save_embedding"
                )
            embeddings = file.get_tensor("image_embeddings")
        size = int(metadata["original_height"]), int(metadata["original_width"])
    except EmbeddingFileError:
        raise
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise EmbeddingFileError(
            f"{path} cannot be read as an embedding file ({error}); make it with save_embedding"
        ) from error
    if min(size) < 1 or max(size) > LONGEST_SIDE or not np.isfinite(embeddings).all():
        raise EmbeddingFileError(
            f"{path} is for a photo of {size} or holds NaN, expected sides from 1 to {LONGEST_SIDE} and finite "
            "numbers; make it again with save_embedding"
        )
    return np.asarray(embeddings, np.float32), size


def _check_metadata(path: str | Path, metadata: dict[str, str], image_size: int, weights: str) -> None:
    if metadata.get("format") != FORMAT:
        raise EmbeddingFileError(f"{path} is no embedding file; make one with save_embedding")
    expectations = (("version", VERSION), ("image_size", str(image_size)), ("weights", weights))
    for name, expected in expectations:
        got = metadata.get(name, "none")
        if got != expected:
            raise EmbeddingFileError(
                f"{path} was made with {name} {got[:12]}, expected {expected[:12]} here; encode the photo again"
            )
