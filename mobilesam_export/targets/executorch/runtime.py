"""Run ExecuTorch artifacts with ExecuTorch's own runtime, as an app does."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mobilesam_export.contract import EMBEDDING_CHANNELS
from mobilesam_export.errors import ExportError
from mobilesam_export.point_slots import fill_slots
from mobilesam_export.targets.executorch.delegates import DELEGATES, XNNPACK
from mobilesam_export.targets.executorch.ports import read_written
from mobilesam_export.targets.executorch.programs import METHOD, load, method

Floats = NDArray[np.float32]


class ExecutorchRuntime:
    """The image encoder and the prompt decoder on the CPU (XNNPACK).

    Args:
        encoder: ``mobile_sam_encoder.pte``.
        decoder: ``mobile_sam_decoder.pte``.

    Raises:
        ExportError: a file that is missing, damaged or not ours, or of a delegate that is not run here.
    """

    def __init__(self, encoder: Path, decoder: Path) -> None:
        try:
            written = read_written(encoder, decoder)
        except (LookupError, ValueError) as error:
            raise ExportError(
                f"{encoder.name} and {decoder.name} are not as this program writes them ({error}); export again"
            ) from error
        delegate = DELEGATES.get(written.metadata.get("delegate", XNNPACK.name))
        if delegate is None or delegate.not_run:
            reason = delegate.not_run if delegate else f"unknown delegate {written.metadata['delegate']!r:.80}"
            raise ExportError(
                f"{encoder.name} and {decoder.name} cannot be run here ({reason}); export with --delegate xnnpack"
            )
        side, slots = written.encoder_inputs[0].shape[1], written.max_points
        assert isinstance(side, int)
        assert slots is not None
        self.image_size, self.max_points = side, slots
        self._encoder, self._decoder = method(load(encoder), METHOD, encoder), method(load(decoder), METHOD, decoder)

    def encode(self, image: Floats) -> Floats:
        """Embed an image.

        Args:
            image: (1, 3, S, S) RGB, 0 to 255, padded as the contract says.

        Returns:
            (1, 256, S/16, S/16).
        """
        side = self.image_size
        if image.shape != (1, 3, side, side):
            raise ExportError(
                f"got an image of shape {image.shape}, expected (1, 3, {side}, {side}); resize and pad it"
            )
        (embeddings,) = run(self._encoder, image.transpose(0, 2, 3, 1))  # BCHW -> BHWC
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
        given = np.array([mask_input is not None], np.float32)
        cells = image_embeddings.transpose(0, 2, 3, 1)  # BCHW -> BHWC
        answers = [
            run(
                self._decoder,
                cells[i : i + 1] if len(cells) > 1 else cells,
                coords[i : i + 1], labels[i : i + 1], masks[i : i + 1], given,
            )
            for i in range(batch)
        ]  # fmt: skip
        logits, quality = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        return logits, quality


def run(graph: Any, *inputs: Floats) -> list[Floats]:
    """Run a method on float32 arrays, in the order of its inputs."""
    tensors = [torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in inputs]
    return [output.numpy() for output in graph.execute(tensors)]
