"""Run the Core ML packages: Apple's runtime on macOS, our executor of ML Programs elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.errors import ExportError
from mobilesam_export.point_slots import fill_slots
from mobilesam_export.targets.coreml.executor import MLProgram
from mobilesam_export.targets.coreml.executor.backend import load_coremltools, quiet
from mobilesam_export.targets.coreml.executor.package import open_package

Floats = NDArray[np.float32]

COMPUTE_UNITS = {"all": "ALL", "cpu": "CPU_ONLY", "cpu_gpu": "CPU_AND_GPU", "cpu_ne": "CPU_AND_NE"}
EXECUTOR = "executed by our ML Program executor, not by Apple's runtime"
NATIVE = "executed by Apple's Core ML runtime"


def executed_by(native: bool = sys.platform == "darwin") -> str:
    """What runs the packages, in words."""
    return NATIVE if native else EXECUTOR


class _Engine(Protocol):
    def predict(self, feeds: dict[str, Floats]) -> dict[str, Floats]: ...


class CoreMLRuntime:
    """Both packages, loaded once.

    Args:
        encoder, decoder: the ``.mlpackage`` folders.
        compute_units: ``all``, ``cpu``, ``cpu_gpu`` or ``cpu_ne``; only Apple's runtime has a choice.
        native: use Apple's runtime; by default wherever there is one.

    Attributes:
        image_size: side S of the model frame.
        max_points: slots for points and box corners.
        engine: what runs the packages, in words, for reports.

    Raises:
        ExportError: a package is missing or damaged, or Apple's runtime is asked for where there is none.
    """

    def __init__(self, encoder: Path, decoder: Path, *, compute_units: str = "all", native: bool | None = None) -> None:
        if compute_units not in COMPUTE_UNITS:
            raise ExportError(f"got compute units {compute_units!r}, expected one of {', '.join(COMPUTE_UNITS)}")
        native = sys.platform == "darwin" if native is None else native
        if native and sys.platform != "darwin":
            raise ExportError(f"got native=True on {sys.platform}, expected macOS; leave it out to use our executor")
        if not native and compute_units != "all":
            raise ExportError(
                f"got compute units {compute_units!r}, expected 'all': our executor runs on the CPU alone"
            )
        image = open_package(encoder).spec.description.input[0].type
        self._is_image = image.WhichOneof("Type") == "imageType"
        self.image_size = int(image.imageType.width if self._is_image else image.multiArrayType.shape[-1])
        self.max_points, self._fixed_slots = _slots(open_package(decoder).spec.description)
        self.engine = executed_by(native)
        load = _Native if native else _Executor
        self._encoder: _Engine = load(encoder, compute_units)
        self._decoder: _Engine = load(decoder, compute_units)

    def encode(self, image: Floats) -> Floats:
        """Embed (1, 3, S, S) RGB of 0 to 255 as (1, 256, S/16, S/16); an image input rounds it to 8 bits."""
        if self._is_image:
            image = np.rint(image).clip(0, 255).astype(np.float32)
        return self._encoder.predict({"image": image})["image_embeddings"]

    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None
    ) -> tuple[Floats, Floats]:
        """Decode B prompts, one after the other, to (B, 4, S/4, S/4) logits and (B, 4) IoU predictions.

        Args:
            image_embeddings: (1, 256, S/16, S/16).
            point_coords: (B, N, 2) x, y in model-frame pixels.
            point_labels: (B, N) values of ``contract.PointLabel``.
            mask_input: (B, 1, S/4, S/4) logits.
        """
        least = self.max_points if self._fixed_slots else max(point_labels.shape[1], 1)
        coords, labels = fill_slots(point_coords, point_labels, min(least, self.max_points))
        masks, predictions = [], []
        side = self.image_size // 4
        for prompt in range(len(labels)):
            given = np.zeros((1, 1, side, side), np.float32) if mask_input is None else mask_input[prompt : prompt + 1]
            results = self._decoder.predict(
                {
                    "image_embeddings": image_embeddings,
                    "point_coords": coords[prompt : prompt + 1],
                    "point_labels": labels[prompt : prompt + 1],
                    "mask_input": np.asarray(given, np.float32),
                    "has_mask_input": np.asarray([mask_input is not None], np.float32),
                }
            )
            masks.append(results["low_res_masks"])
            predictions.append(results["iou_predictions"])
        return np.concatenate(masks), np.concatenate(predictions)


class _Executor:
    """Our executor; the compute units do not matter."""

    def __init__(self, package: Path, _compute_units: str) -> None:
        self._program = MLProgram(package)

    def predict(self, feeds: dict[str, Floats]) -> dict[str, Floats]:
        return self._program.run(feeds)


class _Native:
    """Apple's runtime through coremltools."""

    def __init__(self, package: Path, compute_units: str) -> None:
        ct = load_coremltools()
        with quiet():
            self._model: Any = ct.models.MLModel(
                str(package), compute_units=getattr(ct.ComputeUnit, COMPUTE_UNITS[compute_units])
            )
        self._images = {
            port.name
            for port in self._model.get_spec().description.input
            if port.type.WhichOneof("Type") == "imageType"
        }

    def predict(self, feeds: dict[str, Floats]) -> dict[str, Floats]:
        from PIL import Image

        ready: dict[str, Any] = {
            name: Image.fromarray(value[0].transpose(1, 2, 0).astype(np.uint8)) if name in self._images else value
            for name, value in feeds.items()
        }
        return {name: np.asarray(value, np.float32) for name, value in self._model.predict(ready).items()}


def _slots(description: Any) -> tuple[int, bool]:
    """How many slots the decoder holds, and whether it always wants that many."""
    labels = next(port for port in description.input if port.name == "point_labels").type.multiArrayType
    if labels.WhichOneof("ShapeFlexibility") == "shapeRange":
        return int(labels.shapeRange.sizeRanges[1].upperBound), False
    return int(labels.shape[1]), True
