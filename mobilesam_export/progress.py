"""Tell a person what is being done, how long it took and how large it became."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console


class Step:
    """One step of an export while it runs; ``result`` is said at its end."""

    result = ""

    def update(self, text: str) -> None:
        """Say what the step is at."""


class Progress:
    """Says nothing: the default of the Python API."""

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Enclose a step."""
        yield Step()


class _Status(Protocol):
    def update(self, status: str) -> None: ...


class _ConsoleStep(Step):
    def __init__(self, title: str, status: _Status) -> None:
        self._title = title
        self._status = status

    def update(self, text: str) -> None:
        """Show beside the spinner what the step is at."""
        self._status.update(f"{self._title}: {text}")


class ConsoleProgress(Progress):
    """A spinner while a step runs, then a line with its time and result, on standard error."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Enclose a step; one that fails is marked so."""
        start = time.perf_counter()
        mark = "[red]✗[/red]"
        with self._console.status(title) as status:
            step = _ConsoleStep(title, status)
            try:
                yield step
                mark = "[green]✓[/green]"
            finally:
                seconds = time.perf_counter() - start
                self._console.print(f"{mark} {title:<44} {seconds:7.1f} s  {step.result}", highlight=False)


def megabytes(size_bytes: int) -> str:
    """A size for people, in units of 10^6 bytes."""
    return f"{size_bytes / 1e6:.1f} MB"
