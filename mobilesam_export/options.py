"""An option of an export, described once: the command line, the checks before any work and the errors read it.

Here are the options of every export; those of one target stand with it. Imports nothing that takes time: ``--help``
must not wait for PyTorch.
"""

from dataclasses import dataclass
from typing import Any

from mobilesam_export.contract import DEFAULT_IMAGE_SIZE, DEFAULT_MAX_POINTS
from mobilesam_export.errors import ExportError

Value = int | float | str | bool | list[str]


@dataclass(frozen=True)
class Option:
    """One option: what may be given, what it does, and what holds if it is not given.

    Attributes:
        name: keyword of ``export()``; on the command line ``--name-with-dashes``.
        kind: type of a value; bool for a flag.
        help: what it does.
        choices: all values that are taken; empty if ``least`` and ``most`` say what is.
        default: what an absent option means; None if that is a kind of its own, which ``help`` then says.
        least, most: bounds of a number, both included.
        step: a number must be a multiple of it.
        why: of the bounds, for the error.
        several: a value is a list of ``choices``, each at most once; on the command line the option is repeated, in the
            singular.
    """

    name: str
    kind: type[int] | type[float] | type[str] | type[bool]
    help: str
    choices: tuple[Value, ...] = ()
    default: Value | None = None
    least: float | None = None
    most: float | None = None
    step: int = 1
    why: str = ""
    several: bool = False

    @property
    def flag(self) -> str:
        """As it is spelled on the command line."""
        return "--" + (self.name.removesuffix("s") if self.several else self.name).replace("_", "-")

    @property
    def type(self) -> Any:
        """Of a value in Python."""
        return list[str] if self.several else self.kind

    @property
    def expected(self) -> str:
        """The values that are taken, in words."""
        if self.several:
            return f"a list of {', '.join(map(str, self.choices))}, each at most once"
        if self.choices:
            return " or ".join(map(str, self.choices)) if len(self.choices) < 3 else ", ".join(map(str, self.choices))
        if self.least is None or self.most is None:
            return "true or false" if self.kind is bool else f"a {self.kind.__name__}"
        multiple = f"a multiple of {self.step} from " if self.step != 1 else ""
        return f"{multiple}{self.least:g} to {self.most:g}{self.why and ': '}{self.why}"

    def takes(self, value: object) -> bool:
        """Whether a value is one of those expected; NaN never is."""
        if self.several:
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                return False
            return bool(value) and set(value) <= set(self.choices) and len(set(value)) == len(value)
        kinds = (int, float) if self.kind is float else (self.kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and self.kind is not bool):
            return False
        if self.choices:
            return value in self.choices
        if self.least is None or self.most is None:
            return True
        assert isinstance(value, int | float)
        return self.least <= value <= self.most and (self.step == 1 or value % self.step == 0)

    def check(self, value: object) -> None:
        """Raise an ExportError for a value that is not taken."""
        if not self.takes(value):
            raise ExportError(f"got {self.name} {shown(value)}, expected {self.expected}")


IMAGE_SIZE = Option(
    "image_size", int, "side of the square model frame in pixels",
    default=DEFAULT_IMAGE_SIZE, least=32, most=2048, step=32,
    why="the encoder halves five times, and work and memory grow with the square",
)  # fmt: skip
MAX_POINTS = Option(
    "max_points", int, "slots of a decoder with a fixed number of points and box corners",
    default=DEFAULT_MAX_POINTS, least=2, most=256,
    why="a click has a padding point, and every slot costs time in every answer",
)  # fmt: skip
MIN_IOU = Option("min_iou", float, "least mask IoU that is accepted, instead of the precision's gate", least=0, most=1)
VERIFY = Option(
    "verify", str, "compare with the reference: on all photos, or quickly on one with every kind of prompt",
    choices=("full", "quick"), default="full",
)  # fmt: skip
MIN_IOU_OF_AUTO = 0.99  # where precision auto is asked for without a --min-iou
PREFER = Option(
    "prefer",
    str,
    "what --precision auto looks for among the plans that hold",
    choices=("size", "speed"),
    default="size",
)


def image_input(*names: str) -> Option:
    """What the encoder takes; the first is the default."""
    return Option("image_input", str, "what the encoder takes", choices=names, default=names[0])


def shown(value: object) -> str:
    """A value as an error shows it: words as they are, everything else so that its type is seen."""
    return value if isinstance(value, str) and value and value.isprintable() and len(value) < 80 else repr(value)[:80]
