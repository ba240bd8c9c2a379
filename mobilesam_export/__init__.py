"""MobileSAM for phones: export, verification and the predictor over exported artifacts.

sam = reference.load_mobile_sam("mobile_sam.pt")
bundle = mobilesam_export.export(sam, targets=["onnx"], out_dir="dist")
predictor = mobilesam_export.load_bundle("dist", target="onnx")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mobilesam_export.errors import ExportError, ParityError
from mobilesam_export.version import __version__

if TYPE_CHECKING:
    from mobilesam_export.bundle.predictor import BundlePredictor as BundlePredictor
    from mobilesam_export.bundle.predictor import load_bundle as load_bundle
    from mobilesam_export.pipeline import Bundle as Bundle
    from mobilesam_export.pipeline import export as export
    from mobilesam_export.pipeline import verify_bundle as verify_bundle

__all__ = [
    "Bundle",
    "BundlePredictor",
    "ExportError",
    "ParityError",
    "__version__",
    "export",
    "load_bundle",
    "verify_bundle",
]

_HOMES = {
    "Bundle": "pipeline",
    "export": "pipeline",
    "verify_bundle": "pipeline",
    "BundlePredictor": "bundle.predictor",
    "load_bundle": "bundle.predictor",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: the leaves (contract, errors) and --help must not wait for PyTorch.
    if name in _HOMES:
        return getattr(import_module(f"mobilesam_export.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'mobilesam_export' has no attribute {name!r}")
