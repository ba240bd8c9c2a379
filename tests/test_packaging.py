"""pyproject.toml says each thing that it says twice the same way, and asks for what the code imports."""

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mobilesam_export.targets import names
from mobilesam_export.version import __version__

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]


def imported_by(path: Path) -> Iterator[str]:
    """First names of what a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PROJECT and PROJECT["dynamic"] == ["version"]
    module, _, name = PYPROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"].rpartition(".")
    assert getattr(importlib.import_module(module), name) == __version__


def test_a_plain_install_brings_onnx_coreml_and_tflite_and_the_others_have_an_extra() -> None:
    for target in names():
        plain = set(PROJECT["optional-dependencies"][target]) <= set(PROJECT["dependencies"])
        assert plain == (target in ("onnx", "coreml", "tflite")), target


def test_the_extra_all_is_all_that_people_use() -> None:
    (everything,) = PROJECT["optional-dependencies"]["all"]
    named = set(re.findall(r"\w+", everything.split("[")[1]))
    apart = {"all", "test", "dev", "doors", "coreai"}  # the last has no wheels for many machines
    assert named == set(PROJECT["optional-dependencies"]) - apart


def test_the_core_neither_imports_nor_asks_for_what_belongs_to_an_extra() -> None:
    core = [*(ROOT / "mobilesam_export").rglob("*.py"), *(ROOT / "reference").rglob("*.py")]
    no_core = (ROOT / "mobilesam_export/accuracy/average_precision.py", *(ROOT / "reference/training").rglob("*.py"))
    imported = {name for path in core if path not in no_core for name in imported_by(path)}
    asked_for = {re.split(r"[^\w-]", line)[0].replace("-", "_") for line in PROJECT["dependencies"]}
    extras = {"matplotlib", "accelerate", "transformers", "pycocotools", "cv2", "openvino", "MNN"}
    assert not imported & extras
    assert not asked_for & extras
    assert imported & {"psutil", "safetensors", "platformdirs", "rich"} <= asked_for
