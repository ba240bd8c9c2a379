"""The ExecuTorch target."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilesam_export.contract import Written
from mobilesam_export.errors import ExportError
from mobilesam_export.options import MAX_POINTS, Option
from mobilesam_export.parity.gates import FLOAT32, compressed
from mobilesam_export.targets.executorch.delegates import DELEGATES, XNNPACK
from mobilesam_export.targets.target import Cost, Precision, Runtime, Step, Target

if TYPE_CHECKING:
    from reference.mobile_sam import MobileSam

OLDEST = (1, 5)  # what this is written against


class Executorch(Target):
    """Two ExecuTorch programs, those on XNNPACK run by ExecuTorch's own runtime."""

    name = "executorch"
    packages = ("executorch",)
    distributions = ("executorch", "torchao")
    options = (
        MAX_POINTS,
        Option(
            "delegate", str, "what of ExecuTorch runs the graphs; of these, XNNPACK's files alone are run here",
            choices=tuple(DELEGATES), default=XNNPACK.name,
        ),
    )  # fmt: skip
    precisions = (
        Precision("float32", FLOAT32),
        Precision(
            "int8_dynamic",
            compressed(0.88, "8-bit weights and activations, as TFLite's; the worst mask was 0.977 at 1024"),
            for_transformers=True,
        ),
    )
    default_precision = "float32"
    seconds: Mapping[Step, Cost] = {"write": Cost(60, 5), "report": Cost(1, 0), "verify": Cost(0.3, 2.5)}
    takes_conv_nets = True
    remedy = "run: pip install 'mobilesam-export[executorch]', or choose another --target"

    def refuse(self, precision: str, options: Mapping[str, Any], image_size: int) -> None:
        """See ``Target``."""
        delegate = options.get("delegate", XNNPACK.name)
        if precision != "float32" and delegate != XNNPACK.name:
            raise ExportError(
                f"got precision {precision} for delegate {delegate}, expected float32; leave out one of the two"
            )

    def not_run(self, options: Mapping[str, Any]) -> str | None:
        """See ``Target``."""
        return DELEGATES[options.get("delegate", XNNPACK.name)].not_run

    def load(self, verify: bool) -> None:
        """See ``Target``.

        Raises:
            ExportError: an executorch that is too old.
        """
        from importlib.metadata import version

        found = version("executorch")
        if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
            raise ExportError(
                f"got executorch {found}, expected {'.'.join(map(str, OLDEST))} or later; "
                "run: pip install --upgrade 'mobilesam-export[executorch]'"
            )
        from mobilesam_export.targets.executorch.write import load_converter

        load_converter()
        if verify:
            import mobilesam_export.targets.executorch.runtime  # noqa: F401 - imported early, to fail before any work

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
        from mobilesam_export.targets.executorch.write import write

        return write(sam, out_dir, precision=precision, metadata=metadata, progress=progress, **options)

    def ports(self, encoder: Path, decoder: Path) -> Written:
        """See ``Target``."""
        from mobilesam_export.targets.executorch.ports import read_written

        return read_written(encoder, decoder)

    def open(self, encoder: Path, decoder: Path) -> Runtime:
        """See ``Target``."""
        from mobilesam_export.targets.executorch.runtime import ExecutorchRuntime

        return ExecutorchRuntime(encoder, decoder)

    def notes(self, paths: Sequence[Path]) -> Mapping[str, Any]:
        """What of each file the delegate runs."""
        from mobilesam_export.targets.executorch.write import notes

        return notes(paths)
