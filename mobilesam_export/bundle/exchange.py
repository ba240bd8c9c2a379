"""Swap what two names stand for in one step, so that at no moment there is nothing under one of them."""

import ctypes
import errno
import os
import sys
from pathlib import Path

_AT_FDCWD = -100  # paths count from the current folder, as everywhere
_RENAME_EXCHANGE = 2  # Linux, linux/fs.h
_RENAME_SWAP = 2  # macOS, sys/stdio.h
_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)  # by this kernel, or by this file system


def exchange(a: Path, b: Path) -> bool:
    """Swap two folders of one file system atomically.

    Returns:
        Whether it was done; False where the system has no such call (Windows, some network file systems).

    Raises:
        OSError: the system has the call and refuses it.
    """
    if os.name != "posix":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(a), os.fsencode(b)
    if sys.platform.startswith("linux") and hasattr(libc, "renameat2"):
        failed = libc.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE)
    elif sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(first, second, _RENAME_SWAP)
    else:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in _NOT_OFFERED:
        return False
    raise OSError(number, os.strerror(number), str(b))
