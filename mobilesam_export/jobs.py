"""What an export has to do for each target, refused before any work where it cannot be done."""

import importlib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from mobilesam_export.errors import ExportError
from mobilesam_export.manifest import TARGETS
from mobilesam_export.parity.gates import ONNX_RECIPES, Gates, Recipe, gates_for

DEFAULT_PRECISION = {"onnx": "float32", "coreml": "float16", "tflite": "float32"}
TARGET_OPTIONS = {  # options beyond the precision, and who takes them
    "onnx": ("max_points", "opset", "single_mask", "official_decoder"),
    "coreml": ("max_points", "image_input", "deployment_target", "flexible_points"),
    "tflite": ("max_points", "image_input", "combined"),
}
IMAGE_INPUTS = {"coreml": ("image", "tensor"), "tflite": ("float32", "uint8")}
PACKAGES = {  # what each target needs, by import name
    "onnx": ("onnx", "onnxruntime"),
    "coreml": ("coremltools",),
    "tflite": ("litert_torch", "ai_edge_litert"),
}


@dataclass(frozen=True)
class Job:
    """One target to be written: its module, precision, the options it takes, and its gates."""

    target: str
    module: ModuleType
    precision: str
    options: Mapping[str, Any]
    gates: Gates


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given: neither None nor a flag that is off."""
    return {name: value for name, value in options.items() if value is not None and value is not False}


def plan(targets: Sequence[str], precision: str | None, options: Mapping[str, Any], verify: bool) -> dict[str, Job]:
    """Refuse before any work what cannot be written: unknown targets, missing backends, options nobody takes."""
    if isinstance(targets, str):
        targets = (targets,)
    if not targets or (unknown := [target for target in targets if target not in TARGETS]):
        raise ExportError(f"got target {', '.join(unknown) if targets else 'list []'}, expected {', '.join(TARGETS)}")
    if options.get("max_points", 2) < 2:
        raise ExportError(f"got max_points {options['max_points']}, expected at least 2: a click has a padding point")
    for name, value in options.items():
        takers = [target for target in TARGETS if _takes(target, name, value)]
        if not set(takers) & set(targets):
            if not takers:
                raise ExportError(f"got {name} {value!r}, expected one of {IMAGE_INPUTS}")
            raise ExportError(f"{name} {value} is for {' and '.join(takers)}, got target {', '.join(targets)}")
    jobs = {}
    for target in dict.fromkeys(targets):
        module = backend(target, f"mobilesam_export.targets.to_{target}")
        if verify:
            backend(target, f"mobilesam_export.runtimes.{target}")
        chosen = precision or DEFAULT_PRECISION[target]
        taken = {name: value for name, value in options.items() if _takes(target, name, value)}
        if taken.get("combined") and chosen in recipes_of(target):
            raise ExportError(f"got {chosen} for a combined file, expected float32 or float16; leave out --combined")
        jobs[target] = Job(target, module, chosen, taken, gates_for(target, chosen, recipes_of(target)))
    return jobs


def _takes(target: str, name: str, value: Any) -> bool:
    """Whether a target has an option, and for ``image_input`` that value of it."""
    return name in TARGET_OPTIONS[target] and (name != "image_input" or value in IMAGE_INPUTS[target])


def recipes_of(target: str) -> Mapping[str, Recipe]:
    """The compression recipes of a target, by name."""
    if target == "onnx":
        return ONNX_RECIPES
    if target == "coreml":
        from mobilesam_export.precision.coreml import RECIPES

        return RECIPES
    from mobilesam_export.precision.tflite import RECIPES as TFLITE_RECIPES

    return TFLITE_RECIPES


def backend(target: str, module: str) -> ModuleType:
    """Import a target's module, or say in one line why it is not there."""
    remedy = (
        "run: pip install mobilesam-export (on a platform that its converter supports, see the README), "
        "or choose another --target"
    )
    missing = [package for package in PACKAGES[target] if importlib.util.find_spec(package) is None]
    if missing:
        raise ExportError(f"the {target} target is not available here (no {' and '.join(missing)}); {remedy}")
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExportError(f"the {target} target is not available here ({error}); {remedy}") from error


@contextmanager
def converter_errors(target: str) -> Iterator[None]:
    """Give what a converter raises a first line that a user can read; out of memory and disk pass through."""
    try:
        yield
    except (ExportError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip() or "no message").splitlines()[0]
        raise ExportError(
            f"the {target} converter failed ({type(error).__name__}: {reason}); run again with --debug for the trace"
        ) from error
