"""The TFLite target."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilesam_export.contract import Written
from mobilesam_export.errors import ExportError
from mobilesam_export.options import MAX_POINTS, Option, image_input
from mobilesam_export.parity.gates import FLOAT16_WEIGHTS, FLOAT32, compressed
from mobilesam_export.targets.target import Cost, Draft, Precision, Runtime, Step, Target
from mobilesam_export.targets.tflite.recipes import RECIPES

if TYPE_CHECKING:
    from reference.mobile_sam import MobileSam


class TFLite(Target):
    """Two TFLite files or one with two signatures, run by LiteRT."""

    name = "tflite"
    packages = ("litert_torch", "ai_edge_litert")
    distributions = ("litert-torch", "ai-edge-litert", "ai-edge-quantizer")
    options = (
        MAX_POINTS,
        image_input("float32", "uint8"),
        Option("combined", bool, "one file with both signatures"),
    )
    precisions = (
        Precision("float32", FLOAT32),
        Precision("float16", FLOAT16_WEIGHTS),
        *(
            Precision(
                recipe.name,
                compressed(recipe.mask_iou, recipe.reason),
                calibrated=recipe.kind == "static",
                for_transformers=recipe.kind != "weights",
            )
            for recipe in RECIPES.values()
        ),
    )
    default_precision = "float32"
    seconds: Mapping[Step, Cost] = {"write": Cost(28, 5), "report": Cost(0.5, 0), "verify": Cost(0.3, 2.5)}
    hosts = ("android", "web")
    takes_conv_nets = True
    searched: Mapping[str, tuple[str, ...]] = {
        "size": ("int8", "float16", "float32"),
        "speed": ("int8_dynamic", "float16", "float32"),
    }

    def refuse(self, precision: str, options: Mapping[str, Any], image_size: int) -> None:
        """See ``Target``."""
        if options.get("combined") and precision in (*RECIPES, "auto"):
            raise ExportError(f"got {precision} for a combined file, expected float32 or float16; leave out --combined")

    def load(self, verify: bool) -> None:
        """See ``Target``."""
        import mobilesam_export.targets.tflite.write

        if verify:
            import mobilesam_export.targets.tflite.runtime  # noqa: F401 - imported early, to fail before any work

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
        from mobilesam_export.targets.tflite.write import draft

        return draft(sam, precision=precision, calibration=calibration, metadata=metadata, progress=progress, **options)

    def ports(self, encoder: Path, decoder: Path) -> Written:
        """See ``Target``."""
        from mobilesam_export.targets.tflite.ports import read_written

        return read_written(encoder, decoder)

    def open(self, encoder: Path, decoder: Path) -> Runtime:
        """See ``Target``."""
        from mobilesam_export.targets.tflite.runtime import TFLiteRuntime

        return TFLiteRuntime(encoder, decoder)

    def notes(self, paths: Sequence[Path]) -> Mapping[str, Any]:
        """What the delegates say of each signature."""
        from mobilesam_export.targets.tflite.write import notes

        return notes(paths)
