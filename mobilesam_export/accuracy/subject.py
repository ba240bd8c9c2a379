"""What is measured: one target of a bundle, or the reference with a checkpoint."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mobilesam_export.bundle.manifest import Manifest
from mobilesam_export.bundle.predictor import load_bundle
from mobilesam_export.version import __version__
from reference.checkpoint import load_mobile_sam, weights_sha256
from reference.predictor import BasePredictor, Predictor


@dataclass(frozen=True)
class Subject:
    """A predictor and what identifies it.

    Attributes:
        facts: for the report; two runs with the same facts measure the same.
        encoder: identifies what makes the embeddings: weights, size, target and precision.
        max_points: slots of its decoder; None for any number.
    """

    predictor: BasePredictor
    facts: dict[str, Any]
    encoder: str
    max_points: int | None


@contextmanager
def bundle_subject(directory: Path, target: str | None) -> Iterator[Subject]:
    """A target of a bundle, opened.

    Raises:
        ExportError: see ``load_bundle``.
    """
    manifest = Manifest.read(directory)
    entry = manifest.target(target)
    hashes = {file.path: file.sha256 for file in entry.files}
    with load_bundle(directory, entry.target) as predictor:
        facts = {
            "target": entry.target,
            "precision": entry.precision,
            "options": entry.options,
            "image_size": manifest.image_size,
            "weights": manifest.weights.source,
            "weights_sha256": manifest.weights.sha256,
            "files_sha256": hashes,
            "engine": getattr(predictor.runtime, "engine", None) or entry.target,
        }
        yield Subject(predictor, facts, hashes[entry.path_of("encoder")], predictor.runtime.max_points)


@contextmanager
def reference_subject(
    checkpoint: str, image_size: int, decoder: str | None = None, key: str | None = None
) -> Iterator[Subject]:
    """The PyTorch reference with a checkpoint.

    Raises:
        CheckpointError: it is none.
    """
    sam = load_mobile_sam(checkpoint, image_size, decoder=decoder, key=key)
    weights = weights_sha256(sam)
    facts = {
        "target": "reference",
        "precision": "float32",
        "image_size": image_size,
        "weights": sam.weights_source,
        "weights_sha256": weights,
    }
    yield Subject(Predictor(sam), facts, f"{weights}-{image_size}-{version('torch')}", None)


def circumstances() -> dict[str, str]:
    """What a figure needs beside it."""
    return {
        "mobilesam_export": __version__,
        "machine": f"{platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
        "torch": version("torch"),
    }
