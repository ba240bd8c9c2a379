"""The Core ML target."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilesam_export.contract import Written
from mobilesam_export.errors import ExportError
from mobilesam_export.options import MAX_POINTS, Option, image_input
from mobilesam_export.parity.gates import FLOAT16, FLOAT32, compressed
from mobilesam_export.targets.coreml.precision.recipes import RECIPES
from mobilesam_export.targets.target import Cost, Draft, Precision, Runtime, Step, Target

if TYPE_CHECKING:
    from reference.mobile_sam import MobileSam

DEPLOYMENT_TARGETS = ("iOS16", "iOS17", "iOS18")
FLEXIBLE_POINTS = (1, 16)  # slots that a decoder of flexible size takes


class CoreML(Target):
    """Two ML Programs, run by Apple's runtime or by our executor."""

    name = "coreml"
    packages = ("coremltools",)
    distributions = ("coremltools",)
    options = (
        MAX_POINTS,
        image_input("image", "tensor"),
        Option("deployment_target", str, "oldest system that loads it", choices=DEPLOYMENT_TARGETS, default="iOS17"),
        Option("flexible_points", bool, "a variable number of points, {} to {}".format(*FLEXIBLE_POINTS)),
    )
    precisions = (
        Precision("float32", FLOAT32),
        Precision("float16", FLOAT16),
        *(
            Precision(
                recipe.name,
                compressed(recipe.mask_iou, recipe.reason),
                calibrated=recipe.activations,
                for_transformers=recipe.palette or recipe.activations,
            )
            for recipe in RECIPES.values()
        ),
    )
    default_precision = "float16"
    seconds: Mapping[Step, Cost] = {"write": Cost(6, 2), "report": Cost(0.3, 4.5), "verify": Cost(0.7, 2.7)}
    hosts = ("ios",)
    takes_conv_nets = True
    # Compressed weights are widened when a package is loaded, so they make it smaller and not faster. palette4's gate
    # is 0.75: with ordinary budgets it is never the answer. int8 has palette8's size and, measured, the farther masks.
    searched: Mapping[str, tuple[str, ...]] = {
        "size": ("palette6", "palette8", "float16", "float32"),
        "speed": ("float16", "float32"),
    }

    def refuse(self, precision: str, options: Mapping[str, Any], image_size: int) -> None:
        """See ``Target``."""
        if precision == "w8a8" and options.get("deployment_target") == "iOS16":
            raise ExportError("got w8a8 for iOS16, which has no 8-bit activations; choose --deployment-target iOS17")
        most = FLEXIBLE_POINTS[1]
        if options.get("flexible_points") and options.get("max_points", most) > most:
            raise ExportError(
                f"got max_points {options['max_points']} for a decoder of flexible points, which takes {most} at most; "
                "choose fewer or leave out --flexible-points"
            )

    def load(self, verify: bool) -> None:
        """See ``Target``."""
        import mobilesam_export.targets.coreml.write

        if verify:
            import mobilesam_export.targets.coreml.runtime  # noqa: F401 - imported early, to fail before any work

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
        from mobilesam_export.targets.coreml.write import draft

        return draft(sam, precision=precision, calibration=calibration, metadata=metadata, progress=progress, **options)

    def ports(self, encoder: Path, decoder: Path) -> Written:
        """See ``Target``."""
        from mobilesam_export.targets.coreml.ports import read_written

        return read_written(encoder, decoder)

    def open(self, encoder: Path, decoder: Path) -> Runtime:
        """See ``Target``."""
        from mobilesam_export.targets.coreml.runtime import CoreMLRuntime

        return CoreMLRuntime(encoder, decoder)

    def notes(self, paths: Sequence[Path]) -> Mapping[str, Any]:
        """What the packages are made of, and how close they come to float16's limits."""
        from mobilesam_export.targets.coreml.write import notes

        return notes(paths)

    def record_parity(self, paths: Sequence[Path], summary: str) -> None:
        """Into the packages, where Xcode shows it."""
        from mobilesam_export.targets.coreml.write import record_parity

        record_parity(paths, summary)
