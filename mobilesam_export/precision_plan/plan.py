"""A precision and its exceptions, as a file that ``--plan`` repeats."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from mobilesam_export.errors import ExportError
from mobilesam_export.json_fields import read_json
from mobilesam_export.options import IMAGE_SIZE, MIN_IOU
from mobilesam_export.rewrites.parts import part_of
from mobilesam_export.targets import named, names

FORMAT = "mobilesam-precision-plan 1"


@dataclass(frozen=True)
class PrecisionPlan:
    """What is rounded and what is not.

    Attributes:
        image_size: that it was decided at.
        precision: a name of the target's.
        exceptions: parts of its graphs (see ``rewrites.parts``) that stay as they are without it: float16 in a
            compressed Core ML package, float32 weights or arithmetic everywhere else.
        weights_sha256: that it was decided on.
        min_iou: least mask IoU that it was decided for.
    """

    target: str
    image_size: int
    precision: str
    exceptions: tuple[str, ...]
    weights_sha256: str
    min_iou: float

    def as_dict(self) -> dict[str, Any]:
        """As in the file."""
        return {"format": FORMAT, **asdict(self), "exceptions": list(self.exceptions)}

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_text(json.dumps(self.as_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a plan, which anybody may have written.

        Raises:
            ExportError: no plan, or one that no target of this version can have.
        """
        fields = read_json(path, "precision plan").record("format", *cls.__dataclass_fields__)
        fields["format"].one_of((FORMAT,))
        target = fields["target"].one_of(names())
        precision = fields["precision"].one_of([known.name for known in named(target).precisions])
        if not IMAGE_SIZE.takes(image_size := fields["image_size"].value):
            fields["image_size"].refuse(IMAGE_SIZE.expected)
        if not MIN_IOU.takes(min_iou := fields["min_iou"].value):
            fields["min_iou"].refuse(MIN_IOU.expected)
        exceptions = [part.text(100) for part in fields["exceptions"].items()]
        for part, field in zip(exceptions, fields["exceptions"].items(), strict=True):
            if part_of(part) != part or exceptions.count(part) > 1:
                field.refuse("a part of the graph such as stages.1.blocks.0, each once")
        return cls(target, image_size, precision, tuple(exceptions), fields["weights_sha256"].sha256(), min_iou)


def read_plans(paths: Sequence[Path], targets: Sequence[str], image_size: int) -> dict[str, PrecisionPlan]:
    """Plans by target.

    Raises:
        ExportError: two of one target, one of a target that is not exported, or of another image size.
    """
    plans: dict[str, PrecisionPlan] = {}
    for path in paths:
        plan = PrecisionPlan.read(path)
        if plan.target not in targets:
            raise ExportError(
                f"{path} is a plan for {plan.target}, got target {', '.join(targets)}; add --target {plan.target}"
            )
        if plan.target in plans:
            raise ExportError(f"got two plans for {plan.target}, expected one; leave out {path}")
        if plan.image_size != image_size:
            raise ExportError(
                f"{path} was decided at image size {plan.image_size}, got {image_size}; "
                f"choose --image-size {plan.image_size}, or decide anew with --precision auto"
            )
        plans[plan.target] = plan
    return plans


def refuse_unknown_parts(plan: PrecisionPlan, parts: Sequence[str]) -> None:
    """Refuse exceptions that the graphs do not have, or that the precision does not round.

    Raises:
        ExportError: naming them.
    """
    if unknown := [part for part in plan.exceptions if part not in parts]:
        raise ExportError(
            f"got exceptions {', '.join(unknown)} in the plan, expected parts that {plan.target} {plan.precision} "
            f"rounds: {', '.join(parts) or 'none'}; decide anew with --precision auto"
        )
