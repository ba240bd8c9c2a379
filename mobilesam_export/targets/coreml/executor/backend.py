"""Import coremltools once, quietly, and say in one line what is missing if it cannot be imported."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from types import ModuleType

from mobilesam_export.errors import ExportError


def load_coremltools() -> ModuleType:
    """coremltools, without its warnings that a Mac's libraries are absent.

    Raises:
        ExportError: it is not installed.
    """
    with quiet():
        try:
            import coremltools
        except ImportError as error:
            raise ExportError(f"coremltools cannot be imported ({error}); `pip install coremltools`") from error
    module: ModuleType = coremltools
    return module


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what coremltools and torch's tracer print: progress bars, notes on versions and Mac libraries."""
    loggers = [logging.getLogger(name) for name in ("coremltools", "torch.utils._pytree")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
