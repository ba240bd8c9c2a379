"""A target whose artifacts are the reference itself: fast, so that the pipeline around it can be tested."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mobilesam_export import jobs
from mobilesam_export.contract import Contract, Written
from reference.mobile_sam import MobileSam
from tests.reference_runtime import ReferenceRuntime

RUNTIME_CLASSES = {"onnx": "OnnxRuntime", "tflite": "TFLiteRuntime", "coreml": "CoreMLRuntime"}


def write_small_files(sam: MobileSam, out_dir: Path, metadata: Mapping[str, str] | None = None, **_: Any) -> list[Path]:
    """Two files; the decoder is a directory, as an .mlpackage is."""
    encoder, decoder = out_dir / "mobile_sam_encoder.fake", out_dir / "mobile_sam_decoder.fakepackage"
    encoder.write_bytes(b"encoder")
    (decoder / "Data").mkdir(parents=True)
    (decoder / "Data" / "weights.bin").write_bytes(b"weights")
    (decoder / "Manifest.json").write_text(json.dumps(dict(metadata or {})))
    return [encoder, decoder]


def read_written(image_size: int, decoder: Path) -> Written:
    """The contract's ports, and the metadata that was given to ``write_small_files``."""
    contract = Contract(image_size)
    metadata = json.loads((decoder / "Manifest.json").read_text())
    return Written(
        contract.encoder_inputs,
        contract.encoder_outputs,
        contract.decoder_inputs,
        contract.decoder_outputs,
        None,
        metadata,
    )


def install(
    monkeypatch: pytest.MonkeyPatch,
    sam: MobileSam,
    target: str = "onnx",
    runtime: Callable[[MobileSam], ReferenceRuntime] = ReferenceRuntime,
    write: Callable[..., list[Path]] = write_small_files,
) -> None:
    """Put the fake in a target's place, for the rest of a test."""
    writer, engine = ModuleType("writer"), ModuleType("engine")
    writer.__dict__.update(write=write, notes=lambda paths: {"written": len(paths)})
    ports = ModuleType("ports")
    ports.__dict__.update(read_written=lambda encoder, decoder: read_written(sam.image_size, decoder))
    setattr(engine, RUNTIME_CLASSES[target], lambda encoder, decoder: runtime(sam))
    monkeypatch.setitem(jobs.PACKAGES, target, ())
    monkeypatch.setitem(sys.modules, f"mobilesam_export.targets.to_{target}", writer)
    monkeypatch.setitem(sys.modules, f"mobilesam_export.targets.{target}_ports", ports)
    monkeypatch.setitem(sys.modules, f"mobilesam_export.runtimes.{target}", engine)
