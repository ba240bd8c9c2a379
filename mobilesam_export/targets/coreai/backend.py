"""Import Apple's packages once, quietly, and say in one line what is missing, too old, or not tried together."""

from __future__ import annotations

import contextlib
import io
import logging
import platform
import sys
import warnings
from collections.abc import Iterable, Iterator
from importlib.metadata import version

from mobilesam_export.chatter import without_native_chatter
from mobilesam_export.errors import ExportError

LEAST = (0, 4, 3)  # of coreai-torch, which pins its coreai-core
LEAST_GLIBC = (2, 34)
LEAST_MACOS = 26

_log = logging.getLogger(__name__)
_told: set[str] = set()


def load_coreai() -> None:
    """Import what converts and what runs.

    A remark of the converter on the version of PyTorch is logged, once, as one line.

    Raises:
        ImportError: it is not installed, or not whole.
        ExportError: it is too old.
    """
    found = version("coreai-torch")
    if _numbers(found) < LEAST:
        raise ExportError(
            f"got coreai-torch {found}, expected {'.'.join(map(str, LEAST))} or later; "
            "run: pip install --upgrade 'mobilesam-export[coreai]'"
        )
    with quiet(), warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")  # recorded, not shown: ``tell`` says what matters of them
        import coreai_torch  # noqa: F401 - imported early, to fail before any work
    tell(remarks)


def tell(remarks: Iterable[warnings.WarningMessage]) -> None:
    """Log what is said about the version of PyTorch, each remark once."""
    for remark in remarks:
        text = " ".join(str(remark.message).split())
        if "torch" in text and text not in _told:
            _told.add(text)
            _log.warning("%s Parity judges what it writes.", text)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what Apple's packages print: progress bars, banners and the loading of functions."""
    nowhere = io.StringIO()
    with without_native_chatter(), contextlib.redirect_stderr(nowhere), contextlib.redirect_stdout(nowhere):
        yield


def remedy() -> str:
    """What to do where the packages are missing: install them, or, where Apple has none for this machine, which has."""
    if reason := without_wheels(sys.platform, platform.machine(), sys.version_info[:2], _system_version()):
        return (
            f"Apple's packages are for Linux x86-64 with glibc 2.34 or later and for macOS 26 or later on Apple "
            f"silicon, Python 3.11 to 3.14; here is {reason}. Choose another --target"
        )
    return "run: pip install 'mobilesam-export[coreai]', or choose another --target"


def without_wheels(system: str, machine: str, python: tuple[int, int], release: tuple[int, ...]) -> str | None:
    """What speaks against wheels of coreai-core for a machine, in words; None if there are some.

    Args:
        system: as ``sys.platform``.
        release: of glibc, or of macOS.
    """
    if system not in ("linux", "darwin"):
        return system
    if machine != ("x86_64" if system == "linux" else "arm64"):
        return f"{system} on {machine}"
    if not (3, 11) <= python <= (3, 14):
        return f"Python {python[0]}.{python[1]}"
    shown = ".".join(map(str, release)) or "another C library"
    if system == "linux" and release < LEAST_GLIBC:
        return f"glibc {shown}" if release else shown
    if system == "darwin" and release < (LEAST_MACOS,):
        return f"macOS {shown}"
    return None


def _system_version() -> tuple[int, ...]:
    """Of macOS, or of glibc; empty for another C library."""
    if sys.platform == "darwin":
        return _numbers(platform.mac_ver()[0])
    library, found = platform.libc_ver()
    return _numbers(found) if library == "glibc" else ()


def _numbers(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with."""
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
