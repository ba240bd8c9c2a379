"""Open a saved ``.mlpackage``: find its specification and its weight blob, and say in one line what is missing.

A package is a folder: ``Manifest.json`` names the root model, ``Data/com.apple.CoreML/model.mlmodel`` is the protobuf
specification, and ``Data/com.apple.CoreML/weights/weight.bin`` holds the large constants. Only coremltools' protobuf
classes are used here, none of its native libraries, so a package opens on every platform.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilesam_export.errors import ExportError
from mobilesam_export.targets.coreml.executor.backend import load_coremltools


@dataclass(frozen=True)
class Package:
    """One opened package: its path, its parsed specification and the folder its weight files lie in."""

    path: Path
    spec: Any  # coremltools.proto.Model_pb2.Model
    model_folder: Path


def open_package(path: Path) -> Package:
    """Read the specification of a saved package.

    Raises:
        ExportError: the path is no package, or its manifest or its specification is missing or damaged; or
            coremltools is not installed.
    """
    load_coremltools()
    from coremltools.proto import Model_pb2
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    path = Path(path)
    manifest_path = path / "Manifest.json"
    if not manifest_path.is_file():
        raise ExportError(f"got {path}, expected an .mlpackage folder with a Manifest.json; export the bundle again")
    try:
        manifest = json.loads(manifest_path.read_text())
        root = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ExportError(f"{manifest_path} is damaged ({error!r}); export the bundle again") from error
    model_path = path / "Data" / root
    if not model_path.is_file():
        raise ExportError(f"{path} lacks its specification Data/{root}; copy the whole folder or export again")
    spec = Model_pb2.Model()
    try:
        spec.ParseFromString(model_path.read_bytes())
    except DecodeError as error:
        raise ExportError(f"{model_path} is truncated or no Core ML model; copy it again or export again") from error
    if spec.WhichOneof("Type") != "mlProgram":
        kind = spec.WhichOneof("Type") or "an empty specification"
        raise ExportError(f"{path} holds {kind}, expected an ML Program; export it with `--target coreml`")
    return Package(path, spec, model_path.parent)
