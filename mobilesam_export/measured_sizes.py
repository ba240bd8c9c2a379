"""Which precisions and image sizes are known to miss their gate, so that nobody waits minutes to find out.

``measured_sizes.json`` is written by ``python -m benchmarks.sizes``. It speaks of the weights that it was measured on
alone, by their sha256, and of exports without further options; whatever it does not name is exported and judged.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import log2
from pathlib import Path
from typing import Self

from mobilesam_export.contract import DEFAULT_IMAGE_SIZE
from mobilesam_export.errors import ExportError
from mobilesam_export.targets.choices import option_of

TABLE = Path(__file__).with_name("measured_sizes.json")


@dataclass(frozen=True)
class Cell:
    """What one export came to.

    Attributes:
        mask_iou_gate: the precision's least mask IoU.
        mask_iou_min: lowest of all informative masks; None if none was informative.
        failures: how many checks it missed; 0 if it passed.
        worst_failure: the first of them in words, or None.
        min_iou: with this ``--min-iou`` it passes; None if it passes anyway, or with none.
        seconds: of each step, as the table's machine took them.
    """

    target: str
    precision: str
    image_size: int
    mask_iou_gate: float
    mask_iou_min: float | None
    failures: int
    worst_failure: str | None
    min_iou: float | None
    seconds: Mapping[str, float]

    def misses(self, min_iou: float | None) -> bool:
        """Whether an export with this ``--min-iou`` (None: with the precision's own gate) would be refused."""
        if min_iou is None:
            return self.failures > 0
        enough = self.mask_iou_min is not None and self.mask_iou_min >= min_iou
        return not enough or (self.failures > 0 and self.min_iou is None)


@dataclass(frozen=True)
class MeasuredSizes:
    """The table: cells that were measured with one set of weights."""

    weights_source: str
    weights_sha256: str
    measured_on: str
    cells: tuple[Cell, ...]

    @classmethod
    def read(cls, path: Path = TABLE) -> Self:
        """The committed table, or another one; empty if there is none."""
        if not path.exists():
            return cls("", "", "", ())
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**content, "cells": tuple(Cell(**cell) for cell in content["cells"])})

    def write(self, path: Path = TABLE) -> None:
        """Write the table, whole or not at all, in the order of target, precision and falling size."""
        part = path.with_name(path.name + ".part")
        order = sorted(self.cells, key=lambda cell: (cell.target, cell.precision, -cell.image_size))
        content = {**asdict(self), "cells": [asdict(cell) for cell in order]}
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(path)

    def cell(self, target: str, precision: str, image_size: int) -> Cell | None:
        """What was measured, or None."""
        asked = (target, precision, image_size)
        return next((cell for cell in self.cells if (cell.target, cell.precision, cell.image_size) == asked), None)

    def of(self, weights_sha256: str) -> Self:
        """The table if it is of these weights, else an empty one."""
        return self if weights_sha256 == self.weights_sha256 else type(self)("", weights_sha256, "", ())


def refuse_known_misses(
    exports: Iterable[tuple[str, str]], image_size: int, table: MeasuredSizes, min_iou: float | None
) -> None:
    """Refuse exports that are known to miss their gate, with the nearest ones that pass.

    Args:
        exports: target and precision of each that has no further options.
        image_size: side of the model frame.
        table: of the weights to be exported.
        min_iou: what the user accepts, or None.

    Raises:
        ExportError: naming each of them, what it missed, and in a last line what to do next.
    """
    lines, ways = [], []
    for target, precision in exports:
        cell = table.cell(target, precision, image_size)
        if cell is None or not cell.misses(min_iou):
            continue
        lowest = "unknown" if cell.mask_iou_min is None else f"{cell.mask_iou_min:.4f}"
        asked = cell.mask_iou_gate if min_iou is None else min_iou
        more = f", {cell.failures} checks missed, such as {cell.worst_failure}" if cell.failures else ""
        lines.append(
            f"{target} {precision} at {image_size} is known to miss its gate with these weights: lowest mask IoU "
            f"{lowest}, expected at least {asked:g}{more} (measured on {table.weights_source}); nothing was started"
        )
        ways.append((target, ways_out(target, precision, image_size, table, cell.min_iou)))
    if lines:
        raise ExportError("\n".join([*lines, next_line(ways)]))


def ways_out(target: str, precision: str, image_size: int, table: MeasuredSizes, min_iou: float | None) -> list[str]:
    """What a user can do about a missed gate, the nearest first; what is known to miss, too, is not named.

    Args:
        min_iou: a ``--min-iou`` that is known to help, or None.
    """
    known = {(cell.precision, cell.image_size): not cell.misses(None) for cell in table.cells if cell.target == target}
    ways = []
    sizes = [size for (name, size), passed in known.items() if name == precision and passed] or [
        DEFAULT_IMAGE_SIZE  # what the weights are made for
    ]
    sizes = [size for size in sizes if size != image_size and known.get((precision, size), True)]
    if sizes:
        ways.append(f"--image-size {min(sizes, key=lambda size: abs(log2(size / image_size)))}")
    option = option_of(target, "precision")
    assert option is not None
    names = [str(name) for name in option.choices]
    for name in reversed(names[: names.index(precision)]):
        # A recipe's neighbour is another recipe, not surely a better one.
        if known.get((name, image_size), name in ("float32", "float16")):
            ways.append(f"--precision {target}={name}")
            break
    if min_iou is not None:
        ways.append(f"--min-iou {min_iou:g}")
    return [*ways, "--no-verify"]


def next_line(ways: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The last line of a refusal: each target's ways out."""
    told = [f"{'' if len(ways) == 1 else f'for {target} '}{' or '.join(found)}" for target, found in ways]
    return f"next: {'; '.join(told)}"
