"""Read JSON that anybody may have written: every value is checked, and a wrong one is named by where it stands."""

import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from mobilesam_export.errors import ExportError
from reference.regular_file import regular_file_size

LARGEST_BYTES = 4_000_000
DEEPEST = 32  # brackets within brackets
_SHOWN = 60  # characters of a wrong value


@dataclass(frozen=True)
class Field:
    """A value in a JSON file.

    Every method returns the value as the asked type, or raises an ExportError of one line.

    Attributes:
        where: names the file and the keys that lead to the value.
    """

    value: Any
    where: str

    def refuse(self, expected: str) -> NoReturn:
        """Raise an ExportError that says what was got and what was expected."""
        shown = json.dumps(self.value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        raise ExportError(f"{self.where} is {shown}, expected {expected}; export again")

    def record(self, *names: str) -> dict[str, "Field"]:
        """An object that has these keys and no other."""
        fields = self.entries()
        for name in names:
            if name not in fields:
                raise ExportError(f"{self.where} has no {name!r}; export again")
        for name in fields:
            if name not in names:
                raise ExportError(f"{self.where} has an unknown {name!r}, expected {', '.join(names)}; export again")
        return fields

    def entries(self) -> dict[str, "Field"]:
        """An object with any keys that can be printed."""
        if not isinstance(self.value, dict):
            self.refuse("an object")
        for name in self.value:
            Field(name, f"a key of {self.where}").text()
        return {name: Field(value, f"{self.where}.{name}") for name, value in self.value.items()}

    def items(self) -> list["Field"]:
        """A list."""
        if not isinstance(self.value, list):
            self.refuse("a list")
        return [Field(value, f"{self.where}[{i}]") for i, value in enumerate(self.value)]

    def text(self, at_most: int = 1000) -> str:
        """A string that can be printed on one line."""
        if not isinstance(self.value, str):
            self.refuse("a string")
        if not self.value.isprintable() or len(self.value) > at_most:
            self.refuse(f"at most {at_most} characters that can be printed")
        return self.value

    def one_of(self, choices: Collection[str]) -> str:
        """One of some strings."""
        if not isinstance(self.value, str) or self.value not in choices:
            self.refuse(f"one of {', '.join(choices)}")
        return self.value

    def sha256(self) -> str:
        """64 hexadecimal digits, as hashlib writes them."""
        if not isinstance(self.value, str) or not re.fullmatch("[0-9a-f]{64}", self.value):
            self.refuse("64 hexadecimal digits")
        return self.value

    def boolean(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            self.refuse("true or false")
        return self.value

    def integer(self, low: int, high: int) -> int:
        """A whole number within bounds."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not low <= self.value <= high:
            self.refuse(f"a whole number from {low} to {high}")
        return self.value

    def number(self) -> float:
        """A number; ``read_json`` lets finite ones through only."""
        if not isinstance(self.value, int | float) or isinstance(self.value, bool):
            self.refuse("a number")
        return self.value


def read_json(path: Path, what: str) -> Field:
    """Read a JSON file; its size is looked at before it is read, its depth before anybody descends.

    Raises:
        ExportError: no regular file, too large, no JSON, or JSON with infinities, repeated keys or deep nesting.
    """
    regular_file_size(path, what, LARGEST_BYTES, ExportError)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES)  # it may have grown
        value = json.loads(
            content.decode(), parse_constant=_finite, parse_float=_finite, object_pairs_hook=_without_repetition
        )
    except OSError as error:
        raise ExportError(f"{path} cannot be read ({error.strerror or error}); check its permissions") from error
    except RecursionError as error:
        raise ExportError(f"{path} has brackets more than {DEEPEST} deep, expected a {what}; export again") from error
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ExportError(f"{path} is no {what} ({reason}); export again") from error
    if any(depth > DEEPEST for depth in _depths(value)):
        raise ExportError(f"{path} has brackets more than {DEEPEST} deep, expected a {what}; export again")
    return Field(value, path.name)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:_SHOWN]} is no finite number")
    return number


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key is there twice among {json.dumps([name for name, _ in pairs])[:_SHOWN]}")
    return found


def _depths(value: Any) -> Iterator[int]:
    """The depth of every value, without recursion."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        yield depth
        inside = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        waiting.extend((child, depth + 1) for child in inside)
