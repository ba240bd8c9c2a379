"""Tell a person what is being done, how long it took and how large it became."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console

_LONG_S = 15
_LOG_EVERY_S = 30  # where nobody sees a spinner


class Step:
    """One step of an export while it runs; ``result`` is said at its end."""

    def __init__(self, progress: "Progress") -> None:
        self.result = ""
        self._progress = progress

    def update(self, text: str) -> None:
        """Say what the step is at."""
        self._progress.go_on()


class Progress:
    """Says nothing: the default of the Python API.

    Attributes:
        interrupted: set by the command line on Ctrl-C. Converters swallow a KeyboardInterrupt raised inside
            them (coremltools does), so that it is raised again at the next step.
        outcome: what an interruption leaves, in words.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self.outcome = "nothing was written"
        self._held = False

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt, unless ``held``: then at the end of that."""
        self.interrupted = True
        if not self._held:
            raise KeyboardInterrupt

    @contextmanager
    def held(self) -> Iterator[None]:
        """Enclose the moment in which what is done and what is said of it change together."""
        self.go_on()
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.go_on()

    def go_on(self) -> None:
        """Raise KeyboardInterrupt if there was one."""
        if self.interrupted:
            raise KeyboardInterrupt

    @contextmanager
    def step(self, title: str, expected_s: float | None = None) -> Iterator[Step]:
        """Enclose a step; ``expected_s`` is what ``estimates`` says of it."""
        self.go_on()
        yield Step(self)
        self.go_on()


class _Status(Protocol):
    def update(self, status: str) -> None: ...


class _ConsoleStep(Step):
    def __init__(self, progress: Progress, title: str, status: _Status, console: Console) -> None:
        super().__init__(progress)
        self._title = title
        self._status = status
        self._console = console
        self._said = time.perf_counter()

    def update(self, text: str) -> None:
        """Show beside the spinner what the step is at; in a log, now and then."""
        super().update(text)
        self._status.update(f"{self._title}: {text}")
        now = time.perf_counter()
        if not self._console.is_terminal and now - self._said >= _LOG_EVERY_S:
            self._said = now
            self._console.print(f"… {self._title}: {text}", highlight=False)


class ConsoleProgress(Progress):
    """A spinner while a step runs, then a line with its time and result, on standard error.

    With each step stands how long it takes about, scaled by how this machine did the first one. Where nobody sees a
    spinner (a log, a pipe), a long step is announced on a line of its own.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._slowness: float | None = None  # of this machine, by the first step with an estimate

    @contextmanager
    def step(self, title: str, expected_s: float | None = None) -> Iterator[Step]:
        """Enclose a step; one that fails is marked so."""
        scaled_s = None if expected_s is None else expected_s * (self._slowness or 1)
        waiting = title if scaled_s is None or scaled_s < 1 else f"{title}, {about(scaled_s)}"
        if scaled_s is not None and scaled_s > _LONG_S and not self._console.is_terminal:
            self._console.print(f"… {waiting}", highlight=False)
        start = time.perf_counter()
        mark = "[red]✗[/red]"
        self.go_on()
        with self._console.status(waiting) as status:
            step = _ConsoleStep(self, waiting, status, self._console)
            try:
                yield step
                self.go_on()
                mark = "[green]✓[/green]"
            finally:
                seconds = time.perf_counter() - start
                if expected_s and self._slowness is None:
                    self._slowness = seconds / expected_s
                self._console.print(f"{mark} {title:<44} {seconds:7.1f} s  {step.result}", highlight=False)


def about(seconds: float) -> str:
    """An estimate for people: no more precise than it is."""
    if seconds < 10:
        return f"about {max(1, round(seconds))} s"
    if seconds < 90:
        return f"about {5 * round(seconds / 5)} s"
    return f"about {round(seconds / 60)} min"


def megabytes(size_bytes: int) -> str:
    """A size for people, in units of 10^6 bytes."""
    return f"{size_bytes / 1e6:.1f} MB"
