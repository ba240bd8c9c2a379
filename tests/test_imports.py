"""Imports point one way: reference, rewrites, a target, parity, bundle, pipeline, cli; never to another target."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Each layer may import those before it. What stands beside the named ones (predictor, segment, ...) is on top of
# them all, and below the pipeline. A name with a dot is of a layer of its own, apart from its folder.
LAYERS = (
    ("reference",),
    ("contract", "errors", "version", "chatter", "photos", "progress"),
    ("options", "json_fields", "parity.gates", "model_frame", "point_slots", "npu_lint"),
    ("targets.target",),
    ("rewrites",),
    ("targets.onnx", "targets.coreml", "targets.tflite", "targets.executorch", "targets.coreai"),
    ("targets",),
    ("parity",),
    ("bundle",),
    (),
    ("pipeline",),
    ("cli",),
    ("__init__", "__main__"),
)
ON_TOP = LAYERS.index(())
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
GROUND = (
    "contract",
    "errors",
    "options",
    "progress",
    "parity.gates",
    "targets",
    "targets.choices",
    "accuracy.prompts",
    "accuracy.annotations",
    "everything.prompts_file",
)  # without PyTorch

# A backend is imported in its target's folder only, so that everything else works where it is not installed.
BACKENDS = {
    "onnx": "mobilesam_export.targets.onnx",
    "onnxruntime": "mobilesam_export.targets.onnx",
    "onnxscript": "mobilesam_export.targets.onnx",
    "coremltools": ("mobilesam_export.targets.coreml", "mobilesam_export.targets.executorch"),  # its Core ML delegate
    "litert_torch": "mobilesam_export.targets.tflite",
    "ai_edge_litert": "mobilesam_export.targets.tflite",
    "ai_edge_quantizer": "mobilesam_export.targets.tflite",
    "executorch": "mobilesam_export.targets.executorch",
    "torchao": "mobilesam_export.targets.executorch",
    "coreai": "mobilesam_export.targets.coreai",
    "coreai_torch": "mobilesam_export.targets.coreai",
    "coreai_opt": "mobilesam_export.targets.coreai",
    "tensorflow": None,
    "pycocotools": "mobilesam_export.accuracy",  # and training, which has an extra of its own
}
TRAINING_ONLY = ("accelerate", "transformers", "reference.training")


def sources() -> dict[str, Path]:
    """Every module of the two packages by its dotted name."""
    files = [path for package in ("reference", "mobilesam_export") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


def imports(path: Path) -> Iterator[str]:
    """Dotted names of what a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} imports relatively; write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> str:
    """``reference``, or the part of mobilesam_export that a module belongs to."""
    first, *rest = module.split(".")
    if first == "reference":
        return first
    known = (".".join(rest[:count]) for count in range(len(rest), 1, -1))
    return next((part for part in known if part in RANKS), rest[0] if rest else "__init__")


def rank(part: str) -> int:
    return RANKS.get(part, ON_TOP)


def exists(part: str) -> bool:
    path = part.replace(".", "/")
    return part == "reference" or any((ROOT / "mobilesam_export" / name).exists() for name in (path, f"{path}.py"))


def wrong_imports(modules: dict[str, Path]) -> list[str]:
    wrong = []
    for module, path in modules.items():
        here = layer(module)
        for name in imports(path):
            if name.split(".")[0] not in ("reference", "mobilesam_export"):
                continue
            there = layer(name)
            if not exists(there):  # a name of the package itself, such as mobilesam_export.export
                there = "__init__"
            if there == here or rank(there) < rank(here) or rank(there) == rank(here) == ON_TOP:
                continue
            wrong.append(f"{module} imports {name}")
    return wrong


def foreign_backends(modules: dict[str, Path]) -> list[str]:
    wrong = []
    for module, path in modules.items():
        for name in imports(path):
            backend = name.split(".")[0]
            training = backend == "pycocotools" and module.startswith("reference.training")
            homes = BACKENDS.get(backend)
            inside = module.startswith(tuple(f"{home}." for home in (homes if isinstance(homes, tuple) else (homes,))))
            if backend in BACKENDS and not training and not inside:
                wrong.append(f"{module} imports {name}")
            if name.startswith(TRAINING_ONLY) and not module.startswith("reference.training"):
                wrong.append(f"{module} imports {name}")
    return wrong


def test_imports_point_only_to_the_left() -> None:
    modules = sources()
    assert {"reference.predictor", "mobilesam_export.contract"} <= modules.keys()
    assert wrong_imports(modules) == []


def test_a_backend_is_imported_only_in_its_targets_folder() -> None:
    assert foreign_backends(sources()) == []


def test_pictures_are_opened_only_as_formats_that_are_named() -> None:
    """PIL knows fifty formats, and runs Ghostscript for one of them."""
    found = [
        (module, {keyword.arg for keyword in node.keywords})
        for module, path in sources().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open")
    ]
    assert "reference.images" in dict(found)
    assert [module for module, keywords in found if "formats" not in keywords] == []


def test_the_rules_notice_what_they_are_for(tmp_path: Path) -> None:
    def imported_by(module: str, line: str) -> list[str]:
        path = tmp_path / "module.py"
        path.write_text(f"def late() -> None:\n    {line}\n")
        return wrong_imports({module: path}) + foreign_backends({module: path})

    assert imported_by("reference.predictor", "from mobilesam_export.contract import PIXEL_MEAN")
    assert imported_by("reference.predictor", "import mobilesam_export")
    assert imported_by("mobilesam_export.rewrites.linear", "from mobilesam_export.targets.onnx import write")
    assert imported_by("mobilesam_export.targets.coreml.decoder", "from mobilesam_export.targets.onnx import decoder")
    assert imported_by("mobilesam_export.targets.tflite.write", "import mobilesam_export.targets.coreml.write as other")
    assert imported_by("mobilesam_export.targets.choices", "import onnx")
    assert imported_by("mobilesam_export.parity.compare", "import coremltools")
    assert not imported_by("mobilesam_export.targets.coreml.executor.program", "import coremltools")
    assert not imported_by(
        "mobilesam_export.targets.coreml.write", "from mobilesam_export.targets.coreml import runtime"
    )
    assert imported_by("mobilesam_export.rewrites.linear", "import mobilesam_export.bundle.manifest as manifest")
    assert imported_by("mobilesam_export.bundle.manifest", "from mobilesam_export import export")
    assert imported_by("mobilesam_export.contract", "import reference") == []
    assert imported_by("mobilesam_export.errors", "from mobilesam_export import contract")
    assert imported_by("mobilesam_export.targets.onnx.write", "import coremltools.proto")
    assert imported_by("mobilesam_export.pipeline", "from onnxruntime import InferenceSession")
    assert imported_by("reference.predictor", "from reference.training import scenes")
    assert not imported_by("mobilesam_export.targets.onnx.write", "import onnx")
    assert not imported_by("mobilesam_export.pipeline", "from mobilesam_export.parity import gates")


def test_importing_the_packages_loads_no_backend() -> None:
    watched = sorted({*BACKENDS, *TRAINING_ONLY} - {"onnx"})  # PyTorch itself may import onnx
    code = (
        f"import sys, json, reference, mobilesam_export; print(json.dumps([n for n in {watched} if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_ground_and_the_list_of_targets_load_neither_pytorch_nor_a_backend() -> None:
    watched = sorted({*BACKENDS, "torch"})
    modules = ", ".join(f"mobilesam_export.{part}" for part in GROUND)
    code = f"import sys, json, {modules}; print(json.dumps([n for n in {watched} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
