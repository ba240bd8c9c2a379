"""Size and sha256 of an artifact, which may be a directory such as an .mlpackage."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def _files_under(path: Path) -> Iterable[Path]:
    return sorted(
        (file for file in path.rglob("*") if file.is_file()), key=lambda file: file.relative_to(path).as_posix()
    )


def size_bytes(path: Path) -> int:
    """Size of a file, or of all files in a directory."""
    return sum(file.stat().st_size for file in _files_under(path)) if path.is_dir() else path.stat().st_size


def sha256_of(path: Path) -> str:
    """sha256 of a file, or of a directory as a tree."""
    if path.is_dir():
        return tree_sha256(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(directory: Path) -> str:
    """sha256 of a directory.

    Hashed are, for each file in the order of its path, the line ``sha256-of-the-file  relative/path`` and a
    newline: what ``find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum`` gives inside the directory.
    """
    lines = (f"{sha256_of(file)}  {file.relative_to(directory).as_posix()}\n" for file in _files_under(directory))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
