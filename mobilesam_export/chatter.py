"""Keep what converters and runtimes tell their own developers away from the user's terminal."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def without_native_chatter() -> Iterator[None]:
    """Drop what C++ code writes to standard error; what it raises says the same.

    What Python writes to ``sys.stderr`` meanwhile is dropped too; progress goes to ``own_stderr``.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device's name
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(terminal, 2)
        os.close(terminal)


@contextmanager
def own_stderr() -> Iterator[TextIO]:
    """Standard error through a descriptor of its own, which ``without_native_chatter`` leaves alone."""
    try:
        copy = os.dup(sys.stderr.fileno())
    except (OSError, ValueError):  # no file, as in tests: nothing native goes there
        yield sys.stderr
        return
    with os.fdopen(copy, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace") as stream:
        yield stream


@contextmanager
def own_log(stream: TextIO) -> Iterator[None]:
    """Write this program's remarks as they are, also where a library has given the root logger a form of its own."""
    handler = logging.StreamHandler(stream)
    handler.setLevel(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("mobilesam_export", "reference")]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagate


@contextmanager
def without_log_of(*names: str) -> Iterator[None]:
    """Drop what is logged below an error under these names; "" is the root, where careless libraries log."""
    loggers = [logging.getLogger(name or None) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
