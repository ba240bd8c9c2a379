"""Images as they lie: SA-1B's tar files (`sa_N.jpg` beside `sa_N.json`), or a folder of pictures, COCO's too.

Records come one at a time and in a fixed order; nothing is ever all in memory, and a size is looked at before memory is
taken. Files are opened here, by path: a name such as `pipe:...` or `http://...` is a name. What cannot be read is
skipped, counted and named, see `Skipped`.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reference.images import FORMATS, as_rgb
from reference.photo_folder import PICTURES, files_ending
from reference.regular_file import regular_file_size
from reference.training.distillation.annotations import decode_mask, read_annotations
from reference.training.distillation.tar_index import TarError, tar_members

LARGEST_FILE = 256 * 2**20  # bytes of a picture
LARGEST_PICTURE = 170_000_000  # pixels, 510 MB as RGB; PIL itself refuses 179 million
LARGEST_JSON = 16 * 2**20  # bytes; SA-1B's are below 3 MB. As Python objects they take up to 30 times as much
LARGEST_TAR = 2**50
ENOUGH_TO_TELL = 100  # pictures


@dataclass
class Skipped:
    """What could not be read, and when that is too much to go on.

    A few damaged pictures among many are normal, so they are skipped and named. A training on much less data than was
    given would be another training, so that stops: more than the share `most` of the pictures, or a tar that is cut.

    Attributes:
        most: Share of the pictures that may be skipped.
        read: Pictures met, skipped ones included.
        names: Name and reason of each skipped picture, and of each that lacks some of its masks.
        cut: A line for each tar that ends early, whose lost pictures nobody can count.
    """

    most: float = 0.1
    read: int = 0
    names: dict[str, str] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 <= self.most <= 1:
            raise ValueError(f"got --most-skipped {self.most}, expected a share from 0 to 1")

    def __str__(self) -> str:
        named = [*self.cut, *(f"{name} ({reason})" for name, reason in self.names.items())]
        if not named:
            return "nothing skipped"
        return f"{len(named)} skipped: {'; '.join(named[:5])}{' ...' if len(named) > 5 else ''}"

    def add(self, source: Path, name: str, reason: object) -> None:
        """Name something, with the first reason."""
        self.names.setdefault(_line(f"{source.name}/{name}"), _line(str(reason)))

    def check(self, all_read: bool = False) -> None:
        """Stop where too much is missing.

        Args:
            all_read: Nothing comes any more; otherwise the share counts from ENOUGH_TO_TELL pictures on.

        Raises:
            ValueError: with what is missing and what to do.
        """
        if self.cut:
            raise ValueError(
                f"{'; '.join(self.cut[:5])}; get the file again, or move it away, and run the same command"
            )
        if len(self.names) > self.most * self.read and (all_read or self.read >= ENOUGH_TO_TELL):
            raise ValueError(
                f"of {self.read} pictures {self}; mend or remove them, or allow a larger share by --most-skipped"
            )


@dataclass(frozen=True)
class Record:
    """One picture.

    Attributes:
        source: Tar file or folder.
        key: Name, unique within its source.
        position: Number of this picture in its source, from 1 on; skipped ones count.
        image: (H, W, 3) uint8 RGB.
        annotations: SA-1B's or COCO's list, not yet looked at; empty where annotations were not asked for.
    """

    source: Path
    key: str
    position: int
    image: NDArray[np.uint8]
    annotations: list[Any]

    def masks(self, most: int, rng: np.random.Generator, skipped: Skipped) -> Iterator[NDArray[np.bool_]]:
        """Decode up to `most` random masks of this picture, (H, W) each; unusable annotations are skipped and named."""
        found, reasons = 0, []
        for i in rng.permutation(len(self.annotations)):
            if found == most:
                break
            try:
                mask = decode_mask(self.annotations[i], (self.image.shape[0], self.image.shape[1]))
            except ValueError as error:
                reasons.append(f"annotation {i}: {error}")
                continue
            found += 1
            yield mask
        if reasons:
            more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
            skipped.add(self.source, self.key, reasons[0] + more)


@dataclass(frozen=True)
class _Bytes:
    """Where the bytes of a file lie: by itself, or in a tar."""

    path: Path
    offset: int = 0
    size: int | None = None

    def read(self, what: str, at_most: int) -> bytes:
        size = regular_file_size(self.path, what, at_most, ValueError) if self.size is None else self.size
        if size > at_most:
            raise ValueError(f"{size} bytes, expected a {what} of at most {at_most}")
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(size)


def find_sources(path: Path) -> list[Path]:
    """The units of work in a path: its tar files, or one folder of pictures.

    Raises:
        ValueError: if there is nothing to read, or a tar is no regular file.
    """
    tars = sorted(path.glob("[!.]*.tar")) if path.is_dir() else [path] if path.suffix == ".tar" else []
    for tar in tars:
        regular_file_size(tar, "tar file", LARGEST_TAR, ValueError)
    if tars:
        return tars
    if path.is_dir() and files_ending(path, PICTURES):
        return [path]
    raise ValueError(f"found no images in {path}; expected tar files as SA-1B ships them, or a folder of pictures")


def read_source(
    source: Path, skipped: Skipped, annotated: bool = False, listed: Mapping[str, list[Any]] | None = None
) -> Iterator[Record]:
    """Yield the records of a tar file or a folder, in order.

    Args:
        source: One of `find_sources`.
        skipped: Takes what cannot be read.
        annotated: Read the JSON beside each picture; one without is skipped. Otherwise JSON is not opened.
        listed: Instead, annotations by file name, see `coco.py`; a picture that is not listed is skipped, one without
            annotations passed over.
    """
    for position, (key, picture, beside) in enumerate(_pairs(source, skipped, annotated), 1):
        if listed is not None and listed.get(picture.path.name) == []:
            continue
        skipped.read += 1
        try:
            annotations = []
            if listed is not None:
                if picture.path.name not in listed:
                    raise ValueError("not listed in the document of annotations")
                annotations = listed[picture.path.name]
            elif annotated:
                if beside is None:
                    raise ValueError("no JSON beside it")
                annotations = read_annotations(beside.read("JSON file", LARGEST_JSON))
            image = _decode(picture.read("picture", LARGEST_FILE))
        except (OSError, ValueError) as error:
            skipped.add(source, key, error)
            continue
        yield Record(source, key, position, image, annotations)


def _decode(data: bytes) -> NDArray[np.uint8]:
    """Decode to (H, W, 3) RGB.

    Raises:
        ValueError: it is no picture, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have a limit of our own
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > LARGEST_PICTURE:
            raise ValueError(f"{image.width} x {image.height} pixels, at most {LARGEST_PICTURE / 1e6:.0f} million")
        return as_rgb(image)
    except Exception as error:  # bytes from anywhere make decoders raise anything; whatever it is, this is no picture
        raise ValueError(str(error) or type(error).__name__) from error


def _pairs(source: Path, skipped: Skipped, annotated: bool) -> Iterator[tuple[str, _Bytes, _Bytes | None]]:
    """Key, picture and the JSON of the same name, if there is one."""
    pictures: dict[str, _Bytes] = {}
    documents: dict[str, _Bytes] = {}
    names: set[str] = set()
    unused: dict[str, str] = {}
    for name, where in _files(source, skipped):
        path = PurePosixPath(name)
        stem, suffix = str(path.with_suffix("")), path.suffix.lower()
        if path.name.startswith("."):  # macOS leaves `._sa_1.jpg` in tars
            continue
        if name in names:
            unused[name] = "its name comes twice"
        elif suffix in PICTURES:
            pictures[name if stem in pictures else stem] = where  # a.png beside a.jpg
        elif suffix == ".json":
            documents[stem] = where
        names.add(name)
    for key, where in pictures.items():
        yield key, where, documents.get(key, documents.get(str(PurePosixPath(key).with_suffix(""))))
    if annotated or not source.is_dir():
        unused |= {f"{stem}.json": "no picture" for stem in documents if stem not in pictures}
    for name, reason in unused.items():
        skipped.read += 1
        skipped.add(source, name, reason)


def _files(source: Path, skipped: Skipped) -> Iterator[tuple[str, _Bytes]]:
    if source.is_dir():
        for path in sorted(source.iterdir()):
            yield path.name, _Bytes(path)
        return
    try:
        for member in tar_members(source):
            yield member.name, _Bytes(source, member.offset, member.size)
    except TarError as error:
        skipped.cut.append(_line(f"{source} is no whole tar ({error})"))


def _line(text: str) -> str:
    """Printable, on one line, not too long: names and reasons come from files, and could rewrite a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:300])
