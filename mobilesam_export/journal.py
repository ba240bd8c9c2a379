"""What was measured so far, a line for each thing, so that a run that was killed goes on where it was.

The first line says what is measured; a run that measures something else is refused. A line that a kill has cut is
dropped, and its thing measured again.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mobilesam_export.errors import ExportError

try:
    import fcntl
except ImportError:  # Windows: two runs at once are the user's business there
    fcntl = None  # type: ignore[assignment]

from reference.regular_file import regular_file_size

ACCURACY = "mobilesam-accuracy 1"
LARGEST_BYTES = 8 * 10**9


class Journal:
    """The file beside a report, to be closed (``contextlib.closing``).

    Args:
        path: ``REPORT.jsonl``.
        heading: what is measured, as JSON can hold it.
        overwrite: begin anew.
        form: format and version of the lines.
        key: of a line's name, such as the photo's.

    Attributes:
        done: names of the things that are in it.

    Raises:
        ExportError: it is of another run, or no journal.
    """

    def __init__(
        self,
        path: Path,
        heading: Mapping[str, Any],
        overwrite: bool = False,
        form: str = ACCURACY,
        key: str = "photo",
    ) -> None:
        self.path, self.key = path, key
        self.done: set[str] = set()
        first = json.dumps({"format": form, **heading}, sort_keys=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            regular_file_size(path, "journal of a measurement", LARGEST_BYTES, ExportError)
        self._file = path.open("a", encoding="utf-8")
        try:
            self._lock()
            if overwrite or self._was_cut_at_once(first):
                os.truncate(path, 0)
                self._write(first)
            else:
                self._go_on(first)
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        """Until the file is closed, or the process ends in whatever way."""
        if fcntl is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ExportError(
                    f"another run is writing {self.path}; wait for it, or choose another --out"
                ) from error

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n")
        self._file.flush()

    def _was_cut_at_once(self, first: str) -> bool:
        """Whether there is nothing yet, or a part of the heading."""
        with self.path.open("rb") as file:
            return first.encode().startswith(file.read(len(first) + 1))

    def _go_on(self, first: str) -> None:
        with self.path.open("rb") as file:
            head = file.readline(10**7).decode("utf-8", errors="replace").rstrip("\n")
            if head != first:
                raise ExportError(f"{self.path} is of {_difference(head, first)}; choose another --out, or --overwrite")
            whole = file.tell()
            for line in file:
                record = self._record_of(line)
                if record is None:
                    break
                self.done.add(record[self.key])
                whole += len(line)
        os.truncate(self.path, whole)

    def add(self, name: str, record: Mapping[str, Any]) -> None:
        """Note a thing."""
        self._write(json.dumps({self.key: name, **record}))
        self.done.add(name)

    def records(self) -> Iterator[dict[str, Any]]:
        """All things that are noted."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                record = self._record_of(line)
                assert record is not None
                yield record

    def _record_of(self, line: bytes) -> dict[str, Any] | None:
        """A whole line; None for one that was cut."""
        if not line.endswith(b"\n"):
            return None
        try:
            record = json.loads(line)
        except ValueError:
            return None
        return record if isinstance(record, dict) and isinstance(record.get(self.key), str) else None

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _difference(head: str, first: str) -> str:
    """In which respect two headings differ, in words."""
    ours = json.loads(first)
    try:
        theirs = json.loads(head)
    except ValueError:
        theirs = None
    if not isinstance(theirs, dict) or theirs.get("format") != ours["format"]:
        return "something else than a measurement"
    changed = next(key for key in (*ours, *theirs) if theirs.get(key) != ours.get(key))
    was, now = (json.dumps(heading.get(changed))[:80] for heading in (theirs, ours))
    return f"another measurement ({changed} {was}, here {now})"
