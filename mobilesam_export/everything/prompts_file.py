"""Prompts from elsewhere: a JSON file with ``points`` (x, y) and ``boxes`` (XYXY) in a photo's pixels.

For several photos it has such an object for each, by the photo's file name.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.errors import ExportError
from mobilesam_export.json_fields import Field, read_json
from reference.everything_options import GivenPrompts

MOST_PROMPTS = 100_000
KEYS = ("points", "boxes")


class PromptsFile:
    """A file of prompts.

    Raises:
        ExportError: it is none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            entries = read_json(path, "file of prompts").entries()
            one = bool(set(entries) & set(KEYS))
            self._of_all = _prompts(entries) if one else None
            self._of_photo = {} if one else {name: _prompts(field.entries()) for name, field in entries.items()}
        except ExportError as error:
            told = str(error).replace("; export again", "")
            raise ExportError(f'{told}; give {{"points": [[x, y], ...], "boxes": [[x0, y0, x1, y1], ...]}}') from error

    def of(self, photo: Path) -> GivenPrompts:
        """The prompts of a photo.

        Raises:
            ExportError: it has none.
        """
        found = self._of_all if self._of_all is not None else self._of_photo.get(photo.name)
        if found is None or not len(found):
            raise ExportError(f"{self._path} has no prompt for {photo.name}")
        return found


def _prompts(entries: dict[str, Field]) -> GivenPrompts:
    for name, field in entries.items():
        if name not in KEYS:
            field.refuse(f"nothing of that name, but {' and '.join(KEYS)}")
    return GivenPrompts(_rows(entries.get("points"), 2), _rows(entries.get("boxes"), 4))


def _rows(field: Field | None, width: int) -> NDArray[np.float64]:
    rows: list[list[float]] = []
    for item in [] if field is None else field.items():
        numbers = [number.number() for number in item.items()]
        if len(numbers) != width:
            item.refuse(f"{width} numbers")
        rows.append(numbers)
    if field is not None and len(rows) > MOST_PROMPTS:
        raise ExportError(f"{field.where} has {len(rows):,} entries, expected at most {MOST_PROMPTS:,}")
    return np.array(rows, np.float64).reshape(-1, width)
