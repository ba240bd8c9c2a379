"""Too little memory: said before the work where it can be known, and in one line where it comes out later."""

import errno
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from mobilesam_export.errors import ExportError
from reference.out_of_memory import SIGNS

# Beyond the loaded model ONNX took 0.4 to 0.6 GB, Core ML 0.7, TFLite 0.75 at 1024; larger frames are taken to need
# more by their area.
_EXPORT_BYTES = 800 * 10**6
_MAKE_ROOM = "make room (other programs, the container's limit, ulimit -v)"
_CGROUP = Path("/sys/fs/cgroup")


def free_bytes() -> int:
    """What this process may still take: of the machine, of its container, and of its address space (``ulimit -v``)."""
    return min([int(psutil.virtual_memory().available), *_container_rooms(), *_address_rooms()])


def _container_rooms() -> Iterator[int]:
    for limit, used, statistics in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),  # cgroup version 1
    ):
        try:
            room = int((_CGROUP / limit).read_text()) - int((_CGROUP / used).read_text())
            cached = re.search(r"^(?:total_)?inactive_file (\d+)", (_CGROUP / statistics).read_text(), re.MULTILINE)
        except (OSError, ValueError):  # no container, or the limit is the word "max"
            continue
        yield room + (int(cached[1]) if cached else 0)  # files that the kernel would give back


def _address_rooms() -> Iterator[int]:
    if (limit := _address_limit()) is not None:
        yield limit - psutil.Process().memory_info().vms


def _address_limit() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def require_room_to_load(module: str = "mobilesam_export.pipeline") -> None:
    """Refuse an address space (``ulimit -v``) in which PyTorch and the runtimes cannot be loaded.

    In some of them an import fails, in others the system's loader ends the process, which nobody can catch: where there
    is a limit, another process tries it first.

    Raises:
        ExportError: it failed there.
    """
    limit = _address_limit()
    if limit is not None and subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True).returncode:
        raise ExportError(
            f"out of memory: PyTorch and the runtimes cannot be loaded in {limit / 1e9:.1f} GB of address space; "
            f"{_MAKE_ROOM}"
        )


def require_memory_for_export(image_size: int) -> None:
    """Refuse an export that would be killed half-way; see ``require_memory``."""
    needed = int(_EXPORT_BYTES * max(1, (image_size / 1024) ** 2))
    require_memory(needed, f"an export at {image_size}", "take a smaller image size, or " if image_size > 1024 else "")


def require_memory(needed_bytes: int, what: str, remedy: str) -> None:
    """Refuse work that would be killed half-way.

    Args:
        needed_bytes: what it takes beyond what the process holds already.
        what: the work, for the message.
        remedy: what takes less, and ", or "; empty if nothing does.

    Raises:
        ExportError: less is free.
    """
    free = free_bytes()
    if free < needed_bytes:
        raise ExportError(
            f"{what} takes another {needed_bytes / 1e9:.1f} GB of memory, {max(free, 0) / 1e9:.1f} GB are free; "
            f"{remedy}{_MAKE_ROOM}"
        )


def out_of_memory(error: BaseException) -> str | None:
    """One line, if an error or what caused it tells of memory that could not be had; else None."""
    cause: BaseException | None = error
    while cause is not None:
        said = SIGNS.search(str(cause))
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM:
            return _explain(said[0] if said else "")
        if said and not isinstance(cause, ExportError):  # ours quote the others, which are among the causes
            return _explain(said[0])
        cause = cause.__cause__ or cause.__context__
    return None


def _explain(reason: str) -> str:
    free = f"{max(free_bytes(), 0) / 1e9:.1f} GB are free"
    return f"out of memory{reason and f': {reason.strip()}'} ({free}); take a smaller --image-size, or {_MAKE_ROOM}"
