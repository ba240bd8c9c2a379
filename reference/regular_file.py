"""Look at a file before it is opened: a pipe would block, a device never ends, and a giant takes all memory."""

import os
import stat
from pathlib import Path

MEGABYTE = 10**6


def regular_file_size(path: str | Path, what: str, at_most_bytes: int, error: type[Exception]) -> int:
    """Size in bytes of a regular file (links are followed); nothing is opened or read.

    Args:
        path: what a user named.
        what: the file is to be, in words for the message: ``checkpoint``, ``photo``, ``manifest``.
        at_most_bytes: what the caller is ready to read.
        error: class of what is raised.

    Raises:
        error: if there is nothing, a folder, a pipe, a device or a socket, or more than ``at_most_bytes``.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - Path("a\0b").stat() differs among Pythons, os.stat does not
    except FileNotFoundError as missing:
        raise error(f"there is no {what} at {path}; check the path") from missing
    except (OSError, ValueError) as unreadable:  # ValueError: a NUL in the name
        reason = getattr(unreadable, "strerror", None) or unreadable
        raise error(f"{path} cannot be opened ({reason}); give the path of a {what}") from unreadable
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{path} is {_kind(found.st_mode)}, expected a {what} in a regular file; give its path")
    if found.st_size > at_most_bytes:
        raise error(
            f"{path} has {found.st_size / MEGABYTE:,.0f} MB, expected a {what} of at most "
            f"{at_most_bytes / MEGABYTE:,.0f} MB; give another file"
        )
    return found.st_size


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")
