"""A target whose artifacts are the reference itself: fast, so that the pipeline around it can be tested."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mobilesam_export import targets
from mobilesam_export.contract import Contract, Written
from mobilesam_export.targets.target import Cost, Runtime, Step, Target
from reference.mobile_sam import MobileSam
from tests.reference_runtime import ReferenceRuntime


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


class Fake(Target):
    """What a target says of itself, over small files and the reference."""

    packages = ()
    seconds: Mapping[Step, Cost] = {"write": Cost(1, 1), "report": Cost(1, 1), "verify": Cost(1, 1)}

    def __init__(
        self, real: Target, sam: MobileSam, runtime: Callable[[MobileSam], Runtime], write: Callable[..., list[Path]]
    ) -> None:
        self.name, self.distributions, self.options = real.name, real.distributions, real.options
        self.precisions, self.default_precision = real.precisions, real.default_precision
        self.refuse = real.refuse  # type: ignore[method-assign]
        self._sam, self._runtime, self._write = sam, runtime, write

    def write(
        self,
        sam: MobileSam,
        out_dir: Path,
        *,
        options: Mapping[str, Any],
        calibration: Sequence[Path] | None,
        **more: Any,
    ) -> list[Path]:
        photos = {} if calibration is None else {"calibration": calibration}
        return self._write(sam, out_dir, **more, **options, **photos)

    def ports(self, encoder: Path, decoder: Path) -> Written:
        return read_written(self._sam.image_size, decoder)

    def open(self, encoder: Path, decoder: Path) -> Runtime:
        return self._runtime(self._sam)

    def notes(self, paths: Sequence[Path]) -> Mapping[str, Any]:
        return {"written": len(paths)}


def install(
    monkeypatch: pytest.MonkeyPatch,
    sam: MobileSam,
    target: str = "onnx",
    runtime: Callable[[MobileSam], Runtime] = ReferenceRuntime,
    write: Callable[..., list[Path]] = write_small_files,
) -> None:
    """Put the fake in a target's place, for the rest of a test."""
    fake = Fake(targets.named(target), sam, runtime, write)
    monkeypatch.setattr(targets, "ALL", tuple(fake if one.name == target else one for one in targets.ALL))
