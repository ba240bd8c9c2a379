"""Every option of an export, described once: the command line, the checks before any work and the errors read it here.

Imports nothing that takes time: ``--help`` must not wait for PyTorch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mobilesam_export.contract import DEFAULT_IMAGE_SIZE, DEFAULT_MAX_POINTS
from mobilesam_export.errors import ExportError

Value = int | float | str | bool


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

    @property
    def flag(self) -> str:
        """As it is spelled on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def expected(self) -> str:
        """The values that are taken, in words."""
        if self.choices:
            return " or ".join(map(str, self.choices)) if len(self.choices) < 3 else ", ".join(map(str, self.choices))
        if self.least is None or self.most is None:
            return "true or false" if self.kind is bool else f"a {self.kind.__name__}"
        multiple = f"a multiple of {self.step} from " if self.step != 1 else ""
        return f"{multiple}{self.least:g} to {self.most:g}{self.why and ': '}{self.why}"

    def takes(self, value: object) -> bool:
        """Whether a value is one of those expected; NaN never is."""
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
            raise ExportError(f"got {self.name} {_shown(value)}, expected {self.expected}")


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
DEPLOYMENT_TARGETS = ("iOS16", "iOS17", "iOS18")
CALIBRATED = {"coreml": ("w8a8",), "tflite": ("int8_static", "int8_static16")}  # precisions with fixed ranges
FLEXIBLE_POINTS = (1, 16)  # slots that a Core ML decoder of flexible size takes


def _precision(*names: str, default: str) -> Option:
    return Option("precision", str, "from exact to small", choices=names, default=default)


def _image_input(*names: str) -> Option:
    return Option("image_input", str, "what the encoder takes", choices=names, default=names[0])


# What each target takes. Options of one name are one option on the command line, with each target's own choices.
OF_TARGET: Mapping[str, tuple[Option, ...]] = {
    "onnx": (
        _precision("float32", "float16", "int8", default="float32"),
        replace(MAX_POINTS, default=None),
        Option("opset", int, "operator set; 17 is for older runtimes, and slower", choices=(23, 17), default=23),
        Option("single_mask", bool, "the decoder chooses one mask"),
        Option("official_decoder", bool, "a decoder with the inputs and outputs of the official exporter's"),
    ),
    "coreml": (
        _precision("float32", "float16", "int8", "palette8", "palette6", "palette4", "w8a8", default="float16"),
        MAX_POINTS,
        _image_input("image", "tensor"),
        Option("deployment_target", str, "oldest system that loads it", choices=DEPLOYMENT_TARGETS, default="iOS17"),
        Option("flexible_points", bool, "a variable number of points, {} to {}".format(*FLEXIBLE_POINTS)),
    ),
    "tflite": (
        _precision(
            "float32", "float16", "int8", "int8_dynamic", "int8_static", "int8_static16", default="float32"
        ),
        MAX_POINTS,
        _image_input("float32", "uint8"),
        Option("combined", bool, "one file with both signatures"),
    ),
}  # fmt: skip


def option_of(target: str, name: str) -> Option | None:
    """A target's option of that name, or None if it has none."""
    return next((option for option in OF_TARGET[target] if option.name == name), None)


def takers_of(name: str) -> dict[str, Option]:
    """The targets that have an option of that name, each with its own description of it."""
    return {target: option for target in OF_TARGET if (option := option_of(target, name))}


def names_beyond_precision() -> list[str]:
    """All targets' options but the precision, each name once, in the order of the table."""
    names = dict.fromkeys(option.name for options in OF_TARGET.values() for option in options)
    return [name for name in names if name != "precision"]


def targets_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """Names of targets, each once, from a list of them or of texts such as ``onnx,coreml``; ``all`` means every one.

    Raises:
        ExportError: for an unknown name or none at all.
    """
    texts = (given,) if isinstance(given, str) else tuple(given)
    names = [name.strip() for text in texts for name in str(text).split(",")]
    unknown = [name or "''" for name in names if name != "all" and name not in OF_TARGET]
    if unknown or not names:
        got = ", ".join(unknown) if names else "list []"
        raise ExportError(f"got target {got}, expected {', '.join(OF_TARGET)}")
    return tuple(OF_TARGET) if "all" in names else tuple(dict.fromkeys(names))


def precisions_of(given: str | Mapping[str, str] | None, targets: Sequence[str]) -> dict[str, str]:
    """Each target's precision.

    Args:
        given: one for all targets, a mapping by target, or a text such as ``coreml=float16,tflite=int8_dynamic``, where
            a name without a target is for those not named. What is given for nobody is the target's default.
        targets: to be exported.

    Raises:
        ExportError: an unknown precision, or one for a target that is not exported.
    """
    chosen, others = _by_target(given)
    if foreign := [target for target in chosen if target not in targets]:
        raise ExportError(f"got a precision for {', '.join(foreign)}, expected one of the targets {', '.join(targets)}")
    result = {}
    for target in targets:
        option = option_of(target, "precision")
        assert option is not None
        precision = chosen.get(target, others)
        if precision is not None and not option.takes(precision):
            several = "; each target can have its own: --precision coreml=float16,tflite=int8_dynamic"
            raise ExportError(
                f"got precision {_shown(precision)} for {target}, expected {option.expected}"
                f"{several if len(targets) > 1 else ''}"
            )
        result[target] = str(precision or option.default)
    return result


def _by_target(given: str | Mapping[str, str] | None) -> tuple[dict[str, str], str | None]:
    """Precisions by target, and the one for targets that are not named."""
    if given is None or isinstance(given, Mapping):
        return dict(given or {}), None
    if not isinstance(given, str):
        raise ExportError(f"got precision {_shown(given)}, expected a name, a mapping by target, or None")
    named: dict[str, str] = {}
    others: list[str] = []
    for part in given.split(","):
        target, equals, precision = (piece.strip() for piece in part.partition("="))
        if not equals:
            others.append(target)
        elif target in named:
            raise ExportError(f"got precision {given}, which names {target} twice; give one precision a target")
        else:
            named[target] = precision
    if len(others) > 1:
        raise ExportError(f"got precisions {', '.join(others)} for one target; say whose: coreml=float16,tflite=int8")
    return named, others[0] if others else None


def _shown(value: object) -> str:
    """A value as an error shows it: words as they are, everything else so that its type is seen."""
    return value if isinstance(value, str) and value and value.isprintable() and len(value) < 80 else repr(value)[:80]
