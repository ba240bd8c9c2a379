"""A folder of cut-outs (RGBA pictures of single objects) as paint for scenes.

Any folder of PNG or WebP files with an alpha channel will do; every file is one object. The demonstration weights
were trained on the npm package @lobehub/fluent-emoji-3d (MIT): shaded renderings of people, animals, food, vehicles
and tools, named by their code points. Of such names, flags, keycaps and plain signs are left out, and all skin tones
and genders of one object stay on one side of the split. One object in eight is held out.

The parts of an object are the connected regions of like colour within its alpha.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from platformdirs import user_cache_path

from reference.photo_folder import files_ending

SIDE = 256  # every cut-out is kept at this size
HELD_OUT_SHARE = 8  # one object in so many
_MOST_REGIONS = 8
_COLOURS = 6  # clusters of colour in one object
_LEAST_REGION = 0.02  # of the object's area
_LEAST_AREA = 0.04  # of the picture that must be opaque
_MOST_PIXELS = 4096 * 4096  # of a file that is opened

_SKIN_TONES = set(range(0x1F3FB, 0x1F400))
_GENDER_SIGNS = {0x2640, 0x2642}
_JOINERS = {0x200D, 0xFE0F}
_PERSON = {0x1F468: 0x1F9D1, 0x1F469: 0x1F9D1}  # man and woman count as person
_FLAGS = {0x1F3F3, 0x1F3F4, 0x1F38C, 0x1F3C1, 0x1F6A9, *range(0x1F1E6, 0x1F200)}
_SIGN_RANGES = (  # blocks of plain signs; pictures of things stand in the others
    (0x0000, 0x23FF),
    (0x2460, 0x25FF),
    (0x27A0, 0x2BFF),
    (0x3000, 0x32FF),
    (0x1F000, 0x1F2FF),
    (0x1F500, 0x1F507),
    (0x1F518, 0x1F524),
    (0x1F532, 0x1F53D),
    (0x1F7E0, 0x1F7FF),
)
_SIGN_WORDS = re.compile(
    r"\b(SIGN|SIGNS|SYMBOL|SQUARE|SQUARED|CIRCLE|ARROW|ARROWS|KEYCAP|MARK|CROSS MARK|SELECTOR|ARIES|TAURUS|GEMINI"
    r"|CANCER|LEO|VIRGO|LIBRA|SCORPIUS|SAGITTARIUS|CAPRICORN|AQUARIUS|PISCES|OPHIUCHUS|HEART SUIT|SUIT|SPEECH"
    r"|BUBBLE|PROHIBITED|DIAMOND|TRIANGLE)\b"
)


@dataclass(frozen=True)
class Cutouts:
    """The objects of one split.

    Attributes:
        pixels: (N, 256, 256, 4) uint8 RGBA, not premultiplied; memory-mapped.
        regions: (N, 256, 256) uint8, 0 outside the object, 1 and up its parts.
        kinds: for each object, the rows of `pixels` that show it (skin tones, genders).
    """

    pixels: NDArray[np.uint8]
    regions: NDArray[np.uint8]
    kinds: list[list[int]]


def kind_of(name: str) -> str | None:
    """The object that a file shows: one name for all skin tones and genders. None for flags, keycaps and signs.

    Names that are not code points joined by hyphens are objects of their own.
    """
    try:
        points = [int(part, 16) for part in name.split("-")]
    except ValueError:
        return name
    first = points[0]
    if first in _FLAGS or 0x20E3 in points or any(low <= first <= high for low, high in _SIGN_RANGES):
        return None
    try:
        word = unicodedata.name(chr(first), "")
    except ValueError:
        return name
    if _SIGN_WORDS.search(word):
        return None
    dropped = _SKIN_TONES | _GENDER_SIGNS | _JOINERS
    return "-".join(f"{_PERSON.get(point, point):x}" for point in points if point not in dropped)


def is_held_out(kind: str) -> bool:
    """Whether an object belongs to the held-out split, by the hash of its name."""
    return hashlib.sha256(kind.encode()).digest()[0] % HELD_OUT_SHARE == 0


def prepare_cutouts(folder: Path, out: Path, workers: int = 1) -> None:
    """Read a folder of cut-outs once and write arrays that scene painters map.

    Args:
        folder: searched for .png and .webp files, not its subfolders.
        out: gets `pixels.npy`, `regions.npy` and, last, `cutouts.json`.
        workers: processes.

    Raises:
        ValueError: no usable cut-out there.
    """
    files = [path for path in files_ending(folder, (".png", ".webp")) if kind_of(path.stem) is not None]
    if workers == 1:
        read = [_read(path) for path in files]
    else:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            read = list(pool.map(_read, files, chunksize=16))
    good = [(path.stem, found) for path, found in zip(files, read, strict=True) if found is not None]
    if not good:
        raise ValueError(f"{folder} holds no RGBA cut-out (.png or .webp with an alpha channel that hides something)")
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "pixels.npy", np.stack([pixels for _, (pixels, _) in good]))
    np.save(out / "regions.npy", np.stack([regions for _, (_, regions) in good]))
    (out / "cutouts.json").write_text(json.dumps({"names": [name for name, _ in good]}) + "\n")


def prepared_cutouts(folder: Path, workers: int = 1) -> Path:
    """A folder of pictures, prepared once a user and kept in the cache folder, by names and sizes of its files."""
    files = sorted((path.name, path.stat().st_size) for path in folder.iterdir() if path.is_file())
    out = user_cache_path("mobilesam-export") / "cutouts" / hashlib.sha256(repr(files).encode()).hexdigest()[:16]
    if not (out / "cutouts.json").exists():
        prepare_cutouts(folder, out, workers)
    return out


def open_cutouts(prepared: Path, split: str) -> Cutouts:
    """Map what `prepare_cutouts` wrote, one split of it.

    Raises:
        ValueError: not prepared, or no object of that split.
    """
    if not (prepared / "cutouts.json").exists():
        raise ValueError(f"no prepared cut-outs in {prepared}; give the folder of pictures with --objects")
    kinds: dict[str, list[int]] = {}
    for row, name in enumerate(json.loads((prepared / "cutouts.json").read_text())["names"]):
        kind = kind_of(name)
        if kind is not None and is_held_out(kind) == (split == "held-out"):
            kinds.setdefault(kind, []).append(row)
    if not kinds:
        raise ValueError(f"{prepared} has no {split} object; a folder of at least thirty different objects is needed")
    pixels, regions = (np.load(prepared / f"{name}.npy", mmap_mode="r") for name in ("pixels", "regions"))
    return Cutouts(pixels, regions, list(kinds.values()))


def _read(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """(256, 256, 4) RGBA and its (256, 256) regions; None without an object."""
    try:
        with Image.open(path, formats=("PNG", "WEBP")) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            rgba = np.array(image.convert("RGBA"))
    except (OSError, Image.DecompressionBombError):
        return None
    opaque = rgba[..., 3] > 127
    if opaque.all() or opaque.mean() < _LEAST_AREA:
        return None
    scale = SIDE / max(rgba.shape[:2])
    premultiplied: NDArray[np.float32] = rgba.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    if scale != 1:
        h, w = (max(1, round(side * scale)) for side in rgba.shape[:2])
        premultiplied = np.asarray(
            cv2.resize(premultiplied, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR),
            np.float32,
        )
    h, w = premultiplied.shape[:2]
    square = np.zeros((SIDE, SIDE, 4), np.float32)
    square[(SIDE - h) // 2 : (SIDE - h) // 2 + h, (SIDE - w) // 2 : (SIDE - w) // 2 + w] = premultiplied
    alpha = square[..., 3:]
    square[..., :3] = np.where(alpha > 0, square[..., :3] * 255 / np.maximum(alpha, 1), 0)
    pixels = np.clip(square + 0.5, 0, 255).astype(np.uint8)
    return pixels, colour_regions(pixels)


def colour_regions(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Divide an object into connected regions of like colour.

    Args:
        pixels: (H, W, 4) RGBA.

    Returns:
        (H, W) uint8: 0 outside the alpha, 1 to 8 inside; small regions belong to their nearest larger one.
    """
    inside = pixels[..., 3] > 127
    if not inside.any():
        return np.zeros(inside.shape, np.uint8)
    lab = cv2.cvtColor(cv2.medianBlur(np.ascontiguousarray(pixels[..., :3]), 7), cv2.COLOR_RGB2LAB).astype(np.float32)
    lab[..., 0] *= 0.5  # shading is no part
    samples = lab[inside]
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 10, 1.0)
    some = np.ascontiguousarray(samples[:: max(1, len(samples) // 4000)])
    _, _, centres = cv2.kmeans(some, min(_COLOURS, len(some)), None, stop, 1, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    labels = np.zeros(inside.shape, np.uint8)
    labels[inside] = 1 + _merged(centres)[np.square(samples[:, None] - centres).sum(-1).argmin(1)]
    kept = np.zeros(inside.shape, np.int32)
    count, least = 0, max(30, _LEAST_REGION * np.count_nonzero(inside))
    found: list[tuple[int, NDArray[np.bool_]]] = []
    for label in range(1, int(labels.max()) + 1):
        _, pieces, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=4)
        found += [(int(stats[i, cv2.CC_STAT_AREA]), pieces == i) for i in range(1, len(stats))]
    for area, piece in sorted(found, key=lambda entry: -entry[0])[:_MOST_REGIONS]:
        if count == 0 or area >= least:
            count += 1
            kept[piece] = count
    seeds = (kept == 0).astype(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros(int(nearest.max()) + 1, np.uint8)
    of_label[nearest[seeds == 0]] = kept[seeds == 0]
    return np.where(inside, of_label[nearest], 0).astype(np.uint8)


def _merged(centres: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A number for each colour cluster; clusters closer than a just visible step share one."""
    numbers = np.arange(len(centres), dtype=np.uint8)
    for i in range(len(centres)):
        for j in range(i):
            if np.linalg.norm(centres[i] - centres[j]) < 18:
                numbers[numbers == numbers[i]] = numbers[j]
    return numbers
