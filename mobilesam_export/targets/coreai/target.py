"""The Core AI target."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilesam_export.contract import Written
from mobilesam_export.options import MAX_POINTS
from mobilesam_export.parity.gates import FLOAT16, FLOAT32, compressed
from mobilesam_export.targets.coreai.backend import remedy
from mobilesam_export.targets.target import Cost, Precision, Runtime, Step, Target

if TYPE_CHECKING:
    from reference.mobile_sam import MobileSam


class CoreAI(Target):
    """One asset with two functions, run by Apple's runtime."""

    name = "coreai"
    packages = ("coreai", "coreai_torch", "coreai_opt")
    distributions = ("coreai-core", "coreai-torch", "coreai-opt")
    options = (MAX_POINTS,)
    precisions = (
        Precision("float32", FLOAT32),
        Precision("float16", FLOAT16),
        Precision(
            "int8",
            compressed(0.90, "8-bit weights, a scale an output channel; measured 0.933 to 0.984 at 512"),
        ),
    )
    default_precision = "float32"
    seconds: Mapping[Step, Cost] = {"write": Cost(8, 7), "report": Cost(1, 0), "verify": Cost(2, 27)}
    remedy = remedy()
    verified_by_default = "quick"
    takes_conv_nets = True

    def load(self, verify: bool) -> None:
        """See ``Target``."""
        from mobilesam_export.targets.coreai.backend import load_coreai

        load_coreai()

    def write(
        self,
        sam: "MobileSam",
        out_dir: Path,
        *,
        precision: str,
        options: Mapping[str, Any],
        calibration: Sequence[Path] | None,
        metadata: Mapping[str, str],
        progress: Callable[[str], None],
    ) -> list[Path]:
        """See ``Target``."""
        from mobilesam_export.targets.coreai.write import write

        assert calibration is None
        return write(sam, out_dir, precision=precision, metadata=metadata, progress=progress, **options)

    def ports(self, encoder: Path, decoder: Path) -> Written:
        """See ``Target``."""
        from mobilesam_export.targets.coreai.ports import read_written

        return read_written(encoder, decoder)

    def open(self, encoder: Path, decoder: Path) -> Runtime:
        """See ``Target``."""
        from mobilesam_export.targets.coreai.runtime import CoreAIRuntime

        return CoreAIRuntime(encoder, decoder)

    def notes(self, paths: Sequence[Path]) -> Mapping[str, Any]:
        """What the asset is made of."""
        from mobilesam_export.targets.coreai.write import notes

        return notes(paths)

    def record_parity(self, paths: Sequence[Path], summary: str) -> None:
        """Into the asset, where Apple's readers show it."""
        from mobilesam_export.targets.coreai.write import record_parity

        record_parity(paths, summary)
