"""Run TFLite artifacts with LiteRT, through its Interpreter (what most apps have) or its newer CompiledModel."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.contract import EMBEDDING_CHANNELS
from mobilesam_export.errors import ExportError
from mobilesam_export.point_slots import fill_slots
from mobilesam_export.targets.tflite.engines import CompiledSignature, InterpreterSignature, Signature

Floats = NDArray[np.float32]
ENGINES: dict[str, Callable[[Path, str, int], Signature]] = {
    "interpreter": InterpreterSignature,
    "compiled": CompiledSignature,
}


class TFLiteRuntime:
    """The image encoder and the prompt decoder on the CPU (XNNPACK).

    Args:
        encoder: file with the signature ``encode``.
        decoder: file with the signature ``decode``; the same file for a combined export.
        threads: of XNNPACK; at most four of this machine's cores if None.
        engine: ``interpreter`` or ``compiled``, LiteRT's two interfaces to the same kernels.

    Raises:
        ExportError: a file that is missing, damaged or not ours.
    """

    def __init__(
        self,
        encoder: Path,
        decoder: Path,
        *,
        threads: int | None = None,
        engine: Literal["interpreter", "compiled"] = "interpreter",
    ) -> None:
        if engine not in ENGINES:
            raise ExportError(f"got engine {engine!r}, expected {' or '.join(ENGINES)}")
        threads = threads or min(4, os.cpu_count() or 1)
        self._encoder: Signature = ENGINES[engine](Path(encoder), "encode", threads)
        self._decoder: Signature = ENGINES[engine](Path(decoder), "decode", threads)
        self.image_size: int = self._encoder.inputs["image"].shape[1]
        self.max_points: int = self._decoder.inputs["point_coords"].shape[1]

    def encode(self, image: Floats) -> Floats:
        """Embed an image.

        Args:
            image: (1, 3, S, S) RGB, 0 to 255, padded as the contract says; rounded for an 8-bit artifact.

        Returns:
            (1, 256, S/16, S/16).
        """
        port = self._encoder.inputs["image"]
        side = self.image_size
        if image.shape != (1, 3, side, side):
            raise ExportError(
                f"got an image of shape {image.shape}, expected (1, 3, {side}, {side}); resize and pad it"
            )
        pixels = image.transpose(0, 2, 3, 1)  # BCHW -> BHWC
        if port.dtype == np.uint8:
            pixels = np.clip(np.rint(pixels), 0, 255)
        embeddings = self._encoder(image=pixels)["image_embeddings"]
        return np.ascontiguousarray(embeddings.transpose(0, 3, 1, 2))  # BHWC -> BCHW

    def decode(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats, mask_input: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """Decode B prompts, one after the other.

        Args:
            image_embeddings: (1 or B, 256, S/16, S/16).
            point_coords: (B, N, 2) x, y in model-frame pixels, N at most ``max_points``.
            point_labels: (B, N) of ``contract.PointLabel``.
            mask_input: (B, 1, S/4, S/4) logits, or None.

        Returns:
            (B, 4, S/4, S/4) logits and (B, 4) IoU predictions.
        """
        batch = len(point_labels)
        coords, labels = fill_slots(point_coords, point_labels, self.max_points)
        if len(image_embeddings) not in (1, batch) or image_embeddings.shape[1] != EMBEDDING_CHANNELS:
            raise ExportError(
                f"got embeddings of shape {image_embeddings.shape} for {batch} prompts, expected 1 or {batch}"
            )
        low = self.image_size // 4
        masks = np.zeros((batch, 1, low, low), np.float32) if mask_input is None else mask_input
        cells = image_embeddings.transpose(0, 2, 3, 1)  # BCHW -> BHWC
        answers = [
            self._decoder(
                image_embeddings=cells[i : i + 1] if len(cells) > 1 else cells,
                point_coords=coords[i : i + 1],
                point_labels=labels[i : i + 1],
                mask_input=masks[i : i + 1],
                has_mask_input=np.array([mask_input is not None], np.float32),
            )
            for i in range(batch)
        ]
        return (
            np.concatenate([answer["low_res_masks"] for answer in answers]),
            np.concatenate([answer["iou_predictions"] for answer in answers]),
        )

    def close(self) -> None:
        """Release both models."""
        self._encoder.close()
        self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
