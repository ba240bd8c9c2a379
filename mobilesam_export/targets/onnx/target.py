"""The ONNX target."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilesam_export.contract import Written
from mobilesam_export.errors import ExportError
from mobilesam_export.options import MAX_POINTS, Option
from mobilesam_export.parity.gates import FLOAT16, FLOAT32, compressed
from mobilesam_export.targets.target import Cost, Draft, Precision, Runtime, Step, Target

if TYPE_CHECKING:
    from reference.mobile_sam import MobileSam


CONTRACTS = ("anylabeling", "osam", "transformersjs", "cvat")
CONTRACT_SIZE = 1024  # in all of these tools it is a constant


class Onnx(Target):
    """Two ONNX files, run by ONNX Runtime."""

    name = "onnx"
    packages = ("onnx", "onnxruntime")
    distributions = ("onnx", "onnxruntime", "onnxscript")
    options = (
        replace(MAX_POINTS, default=None),
        Option("opset", int, "operator set; 23 has real Gelu and Attention operators", choices=(17, 23), default=17),
        Option("single_mask", bool, "the decoder chooses one mask"),
        Option("official_decoder", bool, "a decoder with the inputs and outputs of the official exporter's"),
        Option(
            "contracts",
            str,
            "also write a folder of files that this tool takes as they are",
            choices=CONTRACTS,
            several=True,
        ),
    )
    precisions = (
        Precision("float32", FLOAT32),
        Precision("float16", FLOAT16),
        Precision(
            "int8",
            compressed(0.90, "8-bit activations; measured 0.972 with trained weights at 1024, 0.937 with random ones"),
            for_transformers=True,  # of linear layers
        ),
    )
    default_precision = "float32"
    seconds: Mapping[Step, Cost] = {"write": Cost(11, 1), "report": Cost(0.6, 0), "verify": Cost(0.3, 2.5)}
    hosts = ("web",)
    takes_conv_nets = True
    takes_any_encoder = True
    # Weights that are merely stored in float16 cost no time, and gain none.
    searched: Mapping[str, tuple[str, ...]] = {"size": ("float16", "int8", "float32"), "speed": ("int8", "float32")}

    def refuse(self, precision: str, options: Mapping[str, Any], image_size: int) -> None:
        """See ``Target``."""
        if not (contracts := options.get("contracts")):
            return
        whose = f"for the contract {', '.join(contracts)}"
        if image_size != CONTRACT_SIZE:
            raise ExportError(
                f"got image_size {image_size} {whose}, expected {CONTRACT_SIZE}, which is fixed in the tool; "
                "leave out --image-size or --contract"
            )
        if precision == "auto":  # writes and measures many files
            raise ExportError(
                f"got precision auto {whose}; let it decide without --contract, then give its file with --plan"
            )
        for name in ("max_points", "single_mask"):
            if name in options:
                flag = "--" + name.replace("_", "-")
                raise ExportError(
                    f"got {flag} {whose}, whose decoder takes any number of points and chooses by itself; "
                    f"leave out {flag} or --contract"
                )
        if options.get("opset", 17) != 17:
            raise ExportError(f"got opset {options['opset']} {whose}, expected 17; leave out --opset or --contract")

    def load(self, verify: bool) -> None:
        """See ``Target``."""
        import mobilesam_export.targets.onnx.write

        if verify:
            import mobilesam_export.targets.onnx.runtime  # noqa: F401 - imported early, to fail before any work

    def write(self, sam: "MobileSam", out_dir: Path, **arguments: Any) -> list[Path]:
        """See ``Target``."""
        return self.draft(sam, **arguments).write(out_dir)

    def draft(
        self,
        sam: "MobileSam",
        *,
        precision: str,
        options: Mapping[str, Any],
        calibration: Sequence[Path] | None,
        metadata: Mapping[str, str],
        progress: Callable[[str], None],
    ) -> Draft:
        """See ``Target``."""
        from mobilesam_export.targets.onnx.write import draft

        assert calibration is None
        return draft(sam, precision=precision, metadata=metadata, progress=progress, **options)

    def ports(self, encoder: Path, decoder: Path) -> Written:
        """See ``Target``."""
        from mobilesam_export.targets.onnx.ports import read_written

        return read_written(encoder, decoder)

    def open(self, encoder: Path, decoder: Path) -> Runtime:
        """See ``Target``."""
        from mobilesam_export.targets.onnx.runtime import OnnxRuntime

        return OnnxRuntime(encoder, decoder)

    def notes(self, paths: Sequence[Path]) -> Mapping[str, Any]:
        """What an NPU would say of each graph."""
        from mobilesam_export.npu_lint import lint
        from mobilesam_export.targets.onnx.operators import operators_of

        graphs = [path for path in paths if path.parent == paths[0].parent]  # deeper is another tool's form of them
        return {"npu": {path.stem.removeprefix("mobile_sam_"): lint(operators_of(path)) for path in graphs}}
