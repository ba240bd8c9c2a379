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
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

JPEG_QUALITY = 95


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
        records_read: How far in its source this shard reaches, skipped records included.
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


def to_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Encode an (H, W, 3) picture for a shard."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def from_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Decode a shard's picture to (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


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
    """Facts of the shards in a folder, by name."""
    found = []
    for sidecar in sorted(folder.glob("*.json")):
        try:
            found.append(ShardFacts(**json.loads(sidecar.read_text())))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{sidecar} does not describe a shard ({error}); delete it and its .safetensors, and embed again"
            ) from error
    return found


class EmbeddingCache:
    """Random access to the pairs of picture and embedding in a folder of shards.

    Args:
        folder: Where `embed` wrote.
        teacher: Expected `Teacher.id`, or None for whichever made the cache.
        image_size: Expected S, or None.
        verify: Compare every checksum first (reads all bytes); otherwise only sizes.

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
        for shard in self.shards:
            self._check(shard, verify)
        self.where = np.array([(i, j) for i, shard in enumerate(self.shards) for j in range(len(shard.keys))], np.int32)

    def _check(self, shard: ShardFacts, verify: bool) -> None:
        path = self.folder / f"{shard.name}.safetensors"
        again = f"delete {shard.name}.* and run embed again"
        if shard.teacher != self.teacher:
            raise ValueError(
                f"{path} was made by teacher {shard.teacher_name} ({shard.teacher[:12]}), expected "
                f"{self.teacher[:12]}; keep one folder a teacher"
            )
        if shard.image_size != self.image_size:
            raise ValueError(
                f"{path} has image size {shard.image_size}, expected {self.image_size}; keep one folder a size"
            )
        size = path.stat().st_size if path.exists() else 0
        if size != shard.bytes:
            raise ValueError(f"{path} has {size} bytes, expected {shard.bytes}; {again}")
        if verify and sha256_of(path) != shard.sha256:
            raise ValueError(f"{path} does not have its sha256; {again}")

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], Tensor]:
        """The (H, W, 3) picture and its (256, S/16, S/16) float32 embedding."""
        shard, item = (int(v) for v in self.where[index])
        with safe_open(self.folder / f"{self.shards[shard].name}.safetensors", "pt") as file:
            embedding = file.get_slice("embeddings")[item]
            ends = file.get_tensor("ends")
            start = int(ends[item - 1]) if item else 0
            data = file.get_slice("jpegs")[start : int(ends[item])]
        return from_jpeg(data.numpy().tobytes()), embedding.float()
