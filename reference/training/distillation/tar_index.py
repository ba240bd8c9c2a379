"""Where the files of a tar lie, found by reading its headers alone.

The file is opened here, by path: a name is data, whatever it looks like. Python's `tarfile` is not used, because a tar
comes from outside: `tarfile` takes a header that is damaged in the middle for the end of the file, reads a long name of
6 GB into memory, and before Python 3.12.12 turns for ever on a negative size. Here the offset only grows, no read is
longer than `LONGEST_NAME`, and what is no whole tar is said to be none.

Read are POSIX (ustar, with pax's `path` and `size`) and GNU (long names, large sizes) files; links, folders, devices
and sparse files are no pictures and are passed over.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

BLOCK = 512
LONGEST_NAME = 64 * 1024  # bytes of an extended header
MOST_FILES = 2_000_000
PADDING = 1 << 20  # bytes of zeros after the end at most: tar fills its last record, 10,240 bytes by default
PAX_RECORD = re.compile(rb"(\d{1,6}) ([^=]+)=")


class TarError(ValueError):
    """No whole tar file."""


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: its name, and where its bytes lie."""

    name: str
    offset: int
    size: int


def tar_members(path: Path) -> Iterator[Member]:
    """Yield the regular files of a tar in their order.

    Raises:
        TarError: where the tar is cut or damaged; what came before has been yielded.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        total, at, count = os.fstat(file.fileno()).st_size, 0, 0
        extended: dict[bytes, bytes] = {}
        while True:
            file.seek(at)
            header = file.read(BLOCK)
            if not header.strip(b"\0"):
                _require_end(at, len(header), total)
                return
            kind, name, size = _parse(header, at)
            size = _number(extended.pop(b"size"), 10, at) if b"size" in extended else size
            end = at + BLOCK + -(-size // BLOCK) * BLOCK
            if at + BLOCK + size > total:
                raise TarError(f"cut: the file at byte {at} has {size} bytes, {total - at - BLOCK} are there")
            if kind in b"xL":
                extended |= _extended(file, kind, size, at)
            elif kind not in b"gK":  # these two say nothing about a name or a size
                if kind in b"0\0":
                    count += 1
                    yield Member(_text(extended.get(b"path", name)), at + BLOCK, size)
                extended = {}
            if count > MOST_FILES:
                raise TarError(f"more than {MOST_FILES} files in one tar; split it")
            at = end


def _require_end(at: int, got: int, total: int) -> None:
    """A whole tar ends in empty blocks, and soon after them."""
    if got < BLOCK:
        raise TarError(f"cut: it ends at byte {total} without the empty blocks that end a tar")
    if total - at > PADDING:
        raise TarError(f"damaged: an empty header at byte {at}, {total - at} bytes before the end of the file")


def _parse(header: bytes, at: int) -> tuple[bytes, bytes, int]:
    """Type, name and size from one header block."""
    if len(header) < BLOCK:
        raise TarError(f"cut within the header at byte {at}")
    found = sum(header[:148]) + sum(header[156:]) + 8 * ord(" ")
    if _number(header[148:156], 8, at) != found:
        raise TarError(f"no tar header at byte {at}; expected an uncompressed tar")
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    size = header[124:136]
    # GNU's large sizes: a set top bit, then a big-endian number
    length = int.from_bytes(size[1:], "big") if size[0] == 0x80 else _number(size, 8, at)
    return header[156:157], prefix + b"/" + name if prefix else name, length


def _extended(file: BinaryIO, kind: bytes, size: int, at: int) -> dict[bytes, bytes]:
    """What a pax or GNU header says of the file after it."""
    if size > LONGEST_NAME:
        raise TarError(f"damaged: an extended header of {size} bytes at byte {at}, at most {LONGEST_NAME} make sense")
    data = file.read(size)
    if kind == b"L":
        return {b"path": data.split(b"\0")[0]}
    found, start = {}, 0
    while match := PAX_RECORD.match(data, start):
        end = start + int(match[1])
        if end <= match.end() or end > size:
            raise TarError(f"damaged: a pax record of {int(match[1])} bytes at byte {at}")
        if match[2] in (b"path", b"size"):
            found[match[2]] = data[match.end() : end - 1]
        start = end
    return found


def _number(field: bytes, base: int, at: int) -> int:
    text = field.strip(b" \0") or b"0"
    if len(text) > 20 or not text.isdigit() or (base == 8 and re.search(rb"[89]", text)):
        raise TarError(f"no tar header at byte {at}; expected an uncompressed tar")
    return int(text, base)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
