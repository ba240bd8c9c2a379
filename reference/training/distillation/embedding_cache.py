"""The teacher's embeddings on disk: computed once, in float16, in shards with a checksum each.

A shard is `NAME.safetensors` with `embeddings` (n, 256, S/16, S/16) float16, `jpegs` (bytes of n pictures, one after
the other) and `ends` (n,) int64, where each picture ends. The pictures are the resized images that the teacher saw, so
that student and teacher see the same pixels and a picture is decoded at 1024 instead of at camera size. `NAME.json`
beside it holds the facts (teacher, image size, keys, sizes, sha256) and is written last: a shard without it does not
count.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reference.image_encoder import ENCODER_STRIDE
from reference.regular_file import regular_file_size
from reference.training.pixels import from_jpeg

LARGEST_FACTS = 64 * 2**20  # bytes of a sidecar


@dataclass(frozen=True)
class ShardFacts:
    """What is in a shard.

    Attributes:
        name: File name without suffix.
        teacher: `Teacher.id`.
        teacher_name: For people.
        image_size: S.
        keys: Of the pictures.
        sizes: (H, W) of the pictures in the model frame, before padding.
        records_read: Position of the last picture in its source, skipped ones included.
        bytes: Size of the shard.
        sha256: Of the shard.
    """

    name: str
    teacher: str
    teacher_name: str
    image_size: int
    keys: list[str]
    sizes: list[tuple[int, int]]
    records_read: int
    bytes: int
    sha256: str


def sha256_of(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_shard(
    folder: Path, name: str, embeddings: Tensor, jpegs: list[bytes], facts: dict[str, object]
) -> ShardFacts:
    """Write a shard and, last of all, its facts."""
    path, part = folder / f"{name}.safetensors", folder / f"{name}.part"
    tensors = {
        "embeddings": embeddings.half().contiguous(),
        "jpegs": torch.frombuffer(bytearray(b"".join(jpegs)), dtype=torch.uint8),
        "ends": torch.tensor(np.cumsum([len(j) for j in jpegs]), dtype=torch.int64),
    }
    try:
        save_file(tensors, part)
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"could not write shard {path} ({error}); free some disk and run the same command again"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    done = ShardFacts(name=name, bytes=path.stat().st_size, sha256=sha256_of(path), **facts)  # type: ignore[arg-type]
    sidecar = folder / f"{name}.json"
    draft = folder / f"{name}.json.part"
    draft.write_text(json.dumps(asdict(done)) + "\n")
    draft.replace(sidecar)
    return done


def finished_shards(folder: Path) -> list[ShardFacts]:
    """Facts of the shards in a folder, by name.

    Raises:
        ValueError: a JSON file there does not describe a shard.
    """
    found = []
    for sidecar in sorted(folder.glob("*.json")):
        try:
            regular_file_size(sidecar, "shard's facts", LARGEST_FACTS, ValueError)
            found.append(read_facts(sidecar.read_bytes(), sidecar.stem))
        except ValueError as error:
            raise ValueError(
                f"{sidecar} does not describe a shard ({error}); delete it and its .safetensors, and embed again"
            ) from error
    return found


def read_facts(document: bytes, name: str) -> ShardFacts:
    """Read a sidecar.

    Args:
        document: JSON.
        name: Its file's name without suffix, which the facts must repeat.

    Raises:
        ValueError: naming the field that is missing, unknown or no such thing.
    """
    try:
        found = json.loads(document)
    except RecursionError as error:
        raise ValueError("too many brackets") from error
    names = [field.name for field in fields(ShardFacts)]
    if not isinstance(found, dict) or sorted(found) != sorted(names):
        raise ValueError(f"expected the fields {', '.join(names)}")
    count = len(found["keys"]) if isinstance(found["keys"], list) else 0
    size = found["image_size"]
    right = {
        "name": found["name"] == name,
        "teacher": _is_sha256(found["teacher"]),
        "teacher_name": isinstance(found["teacher_name"], str) and found["teacher_name"].isprintable(),
        "image_size": _is_count(size, 2**16) and size % ENCODER_STRIDE == 0,
        "keys": count > 0 and all(isinstance(key, str) for key in found["keys"]) and len(set(found["keys"])) == count,
        "records_read": _is_count(found["records_read"], 2**48) and found["records_read"] >= count,
        "bytes": _is_count(found["bytes"], 2**48),
        "sha256": _is_sha256(found["sha256"]),
    }
    right["sizes"] = (
        isinstance(found["sizes"], list)
        and len(found["sizes"]) == count
        and right["image_size"]
        and all(
            isinstance(sides, list) and len(sides) == 2 and all(_is_count(s, size) for s in sides)
            for sides in found["sizes"]
        )
    )
    for field, is_right in right.items():
        if not is_right:
            raise ValueError(f"{field} is {str(found[field])[:40]!r}")
    return ShardFacts(**{**found, "sizes": [(h, w) for h, w in found["sizes"]]})


def _is_count(value: object, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


class EmbeddingCache:
    """Random access to the pairs of picture and embedding in a folder of shards.

    Args:
        folder: Where `embed` wrote.
        teacher: Expected `Teacher.id`, or None for whichever made the cache.
        image_size: Expected S, or None.
        verify: Check every shard first (reads all bytes); otherwise only sizes are compared, and whoever trains calls
            `require_whole` as the shards stream by.

    Raises:
        ValueError: if there are no shards, or they are truncated or of another teacher or resolution.
    """

    def __init__(
        self, folder: Path, teacher: str | None = None, image_size: int | None = None, verify: bool = False
    ) -> None:
        self.folder, self.shards = folder, finished_shards(folder)
        if not self.shards:
            raise ValueError(
                f"no embedding shards in {folder}; make them with: python -m reference.training embed --out {folder}"
            )
        first = self.shards[0]
        self.teacher, self.teacher_name, self.image_size = (
            teacher or first.teacher,
            first.teacher_name,
            image_size or first.image_size,
        )
        self.whole: dict[int, tuple[int, int]] = {}  # size and time of change of the files that were checked
        for n, shard in enumerate(self.shards):
            self._check(shard)
            if verify:
                self.require_whole(n)
        self.where = np.array([(i, j) for i, shard in enumerate(self.shards) for j in range(len(shard.keys))], np.int32)

    def _path(self, shard: ShardFacts) -> Path:
        return self.folder / f"{shard.name}.safetensors"

    def _check(self, shard: ShardFacts) -> None:
        path = self._path(shard)
        if shard.teacher != self.teacher:
            raise ValueError(
                f"{path} was made by teacher {shard.teacher_name} ({shard.teacher[:12]}), expected "
                f"{self.teacher[:12]}; keep one folder a teacher"
            )
        if shard.image_size != self.image_size:
            raise ValueError(
                f"{path} has image size {shard.image_size}, expected {self.image_size}; keep one folder a size"
            )
        size = regular_file_size(path, "shard", 2**48, ValueError) if path.exists() else 0
        if size != shard.bytes:
            raise ValueError(f"{path} has {size} bytes, expected {shard.bytes}; {_again(shard)}")

    def require_whole(self, number: int) -> None:
        """Compare a shard with its checksum and its facts, once in this object's life and again if the file changes.

        Raises:
            ValueError: naming the shard. It is not skipped: a training on less data would be another training, and
                whoever made the shard can make it again.
        """
        shard = self.shards[number]
        path = self._path(shard)
        found = path.stat()
        stamp = found.st_size, found.st_mtime_ns
        if self.whole.get(number) == stamp:
            return
        if sha256_of(path) != shard.sha256:
            raise ValueError(f"{path} does not have its sha256; {_again(shard)}")
        try:
            _check_content(path, shard)
        except (SafetensorError, OSError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path} does not hold what its facts say ({error}); {_again(shard)}") from error
        self.whole[number] = stamp

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], Tensor]:
        """The (H, W, 3) picture and its (256, S/16, S/16) float32 embedding."""
        shard, item = (int(v) for v in self.where[index])
        with safe_open(self._path(self.shards[shard]), "pt") as file:
            embedding = file.get_slice("embeddings")[item]
            ends = file.get_tensor("ends")
            start = int(ends[item - 1]) if item else 0
            data = file.get_slice("jpegs")[start : int(ends[item])]
        return from_jpeg(data.numpy().tobytes()), embedding.float()


def _again(shard: ShardFacts) -> str:
    return f"delete {shard.name}.* and run embed again"


def _check_content(path: Path, shard: ShardFacts) -> None:
    """Shapes, numbers and picture sizes of a shard, one picture at a time."""
    count, side = len(shard.keys), shard.image_size // ENCODER_STRIDE
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        if names != {"embeddings", "jpegs", "ends"}:
            raise ValueError(f"tensors {', '.join(sorted(names))[:80]}")
        embeddings, jpegs, ends = (file.get_slice(name) for name in ("embeddings", "jpegs", "ends"))
        length = jpegs.get_shape()
        for tensor, kind, shape in (
            (embeddings, "F16", [count, 256, side, side]),
            (jpegs, "U8", length[:1]),
            (ends, "I64", [count]),
        ):
            if tensor.get_dtype() != kind or tensor.get_shape() != shape:
                raise ValueError(f"{tensor.get_dtype()} {tensor.get_shape()}, expected {kind} {shape}")
        start = 0
        for n, end in enumerate(ends[:].tolist()):
            if not start < end <= length[0]:
                raise ValueError(f"picture {n} ends at byte {end} of {length[0]}")
            if not embeddings[n].isfinite().all():
                raise ValueError(f"the embedding of picture {n} is not finite")
            header = Image.open(io.BytesIO(jpegs[start:end].numpy().tobytes()), formats=("JPEG",))
            if (header.height, header.width) != shard.sizes[n]:
                raise ValueError(f"picture {n} has {header.height} x {header.width} pixels")
            start = end
