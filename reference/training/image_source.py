"""Images as they lie: SA-1B's tar files (`sa_N.jpg` beside `sa_N.json`), or a folder of pictures.

Records come one at a time and in a fixed order; nothing is ever all in memory. What cannot be read is skipped, counted
and named.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import webdataset
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from reference.images import as_rgb

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass
class Skipped:
    """What could not be read."""

    names: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.names:
            return "nothing skipped"
        shown = "; ".join(self.names[:5])
        return f"{len(self.names)} skipped: {shown}{' ...' if len(self.names) > 5 else ''}"


@dataclass(frozen=True)
class Record:
    """One picture.

    Attributes:
        key: Name, unique within its source.
        image: (H, W, 3) uint8 RGB.
        annotations: SA-1B's list (`segmentation` in COCO RLE, `bbox`, `area`), empty where there is none.
    """

    key: str
    image: NDArray[np.uint8]
    annotations: list[dict[str, Any]]

    def masks(self, most: int, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
        """Decode up to `most` random masks of this picture, (H, W) each."""
        from pycocotools import mask as coco

        chosen = rng.permutation(len(self.annotations))[:most]
        return [coco.decode(self.annotations[i]["segmentation"]).astype(bool) for i in chosen]


def find_sources(path: Path) -> list[Path]:
    """The units of work in a path: its tar files, or one folder of pictures.

    Raises:
        ValueError: if there is nothing to read.
    """
    if path.is_file() and path.suffix == ".tar":
        return [path]
    if path.is_dir():
        tars = sorted(path.glob("*.tar"))
        if tars:
            return tars
        if any(p.suffix.lower() in PICTURES for p in path.iterdir()):
            return [path]
    raise ValueError(f"found no images in {path}; expected tar files as SA-1B ships them, or a folder of pictures")


def read_source(source: Path, skipped: Skipped) -> Iterator[Record]:
    """Yield the records of a tar file or a folder, in order."""
    for key, data, annotation in _raw(source, skipped):
        try:
            image = as_rgb(Image.open(io.BytesIO(data)))
            found = json.loads(annotation).get("annotations", []) if annotation else []
        except (OSError, UnidentifiedImageError, ValueError, AttributeError, SyntaxError) as error:
            skipped.names.append(f"{source.name}/{key} ({error})")
            continue
        yield Record(key, image, found)


def _raw(source: Path, skipped: Skipped) -> Iterator[tuple[str, bytes, bytes | None]]:
    if source.is_dir():
        for path in sorted(p for p in source.iterdir() if p.suffix.lower() in PICTURES):
            beside = path.with_suffix(".json")
            yield path.stem, path.read_bytes(), beside.read_bytes() if beside.exists() else None
        return

    def note(error: Exception) -> bool:  # a broken tar: keep what came before
        skipped.names.append(f"{source.name} ({error})")
        return False

    # One process reads a whole tar: splitting among workers happens over tar files, see `embed.py`.
    samples = webdataset.WebDataset(
        [str(source)], shardshuffle=False, handler=note, nodesplitter=None, empty_check=False
    )
    for sample in samples:
        picture = next((sample[k[1:]] for k in PICTURES if k[1:] in sample), None)
        if picture is None:
            skipped.names.append(f"{source.name}/{sample['__key__']} (no picture)")
            continue
        yield str(sample["__key__"]), picture, sample.get("json")
