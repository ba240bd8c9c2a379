"""All targets. Another one is one class, beside these, and one entry of ``ALL``.

What stands here imports no backend and no PyTorch: ``--help`` must not wait for them.
"""

from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreai.target import CoreAI
from mobilesam_export.targets.coreml.target import CoreML
from mobilesam_export.targets.executorch.target import Executorch
from mobilesam_export.targets.onnx.target import Onnx
from mobilesam_export.targets.target import Target
from mobilesam_export.targets.tflite.target import TFLite

ALL: tuple[Target, ...] = (Onnx(), CoreML(), TFLite(), Executorch(), CoreAI())


def names() -> tuple[str, ...]:
    """Every target's name, in the order of ``ALL``."""
    return tuple(target.name for target in ALL)


def named(name: str) -> Target:
    """The target of that name.

    Raises:
        ExportError: there is none.
    """
    for target in ALL:
        if target.name == name:
            return target
    raise ExportError(f"got target {name!r}, expected {', '.join(names())}; choose one of these")
