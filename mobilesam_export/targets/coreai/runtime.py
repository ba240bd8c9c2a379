"""Run a Core AI asset: by the system's Core AI from macOS 27 on, by the interpreter of Apple's package elsewhere."""

from __future__ import annotations

import asyncio
import platform
import sys
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.errors import ExportError
from mobilesam_export.point_slots import fill_slots
from mobilesam_export.targets.coreai.asset import open_asset
from mobilesam_export.targets.coreai.backend import quiet
from mobilesam_export.targets.coreai.ports import read_written

Floats = NDArray[np.float32]
Answer = TypeVar("Answer")

INTERPRETER = "executed by the interpreter of Apple's coreai-core"
NATIVE = "executed by the system's Core AI, specialised for this Mac"


def executed_by() -> str:
    """What runs an asset here, in words."""
    release = platform.mac_ver()[0].partition(".")[0]
    return NATIVE if sys.platform == "darwin" and release.isdigit() and int(release) >= 27 else INTERPRETER


class CoreAIRuntime:
    """Both functions, loaded once; ``close`` releases them.

    Args:
        encoder, decoder: the ``.aimodel`` folders; one and the same for an asset of this program.

    Attributes:
        image_size: side S of the model frame.
        max_points: slots for points and box corners.
        engine: what runs the asset, in words, for reports.

    Raises:
        ExportError: an asset is missing or damaged.
    """

    def __init__(self, encoder: Path, decoder: Path) -> None:
        written = read_written(encoder, decoder)
        if written.max_points is None:
            raise ExportError(f"{decoder} has no slots for points; export it with --target coreai")
        self.image_size, self.max_points = int(written.encoder_inputs[0].shape[-1]), written.max_points
        self.engine = executed_by()
        self._loop = _Loop()
        try:
            self._encode, self._decode = self._loop.run(self._load(encoder, decoder))
        except RuntimeError as error:
            self.close()
            reason = (str(error).strip() or "no message").splitlines()[0]
            raise ExportError(f"{encoder.name} cannot be run here ({reason}); export it again") from error

    async def _load(self, encoder: Path, decoder: Path) -> tuple[Any, Any]:
        models: dict[Path, Any] = {}
        with quiet():
            for path in (encoder, decoder):
                if path not in models:
                    models[path] = await self._loop.models.enter_async_context(open_asset(path).executable())
            return models[encoder].load_function("encode"), models[decoder].load_function("decode")

    def close(self) -> None:
        """Release the asset."""
        self._loop.close()

    def encode(self, image: Floats) -> Floats:
        """Embed (1, 3, S, S) RGB of 0 to 255 as (1, 256, S/16, S/16).

        Raises:
            ExportError: an image of another shape.
        """
        side = self.image_size
        if image.shape != (1, 3, side, side):
            raise ExportError(
                f"got an image of shape {image.shape}, expected (1, 3, {side}, {side}); resize and pad it"
            )
        return self._ask(self._encode, {"image": image})["image_embeddings"]

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
        coords, labels = fill_slots(point_coords, point_labels, self.max_points)
        masks, predictions = [], []
        side = self.image_size // 4
        for prompt in range(len(labels)):
            given = np.zeros((1, 1, side, side), np.float32) if mask_input is None else mask_input[prompt : prompt + 1]
            results = self._ask(
                self._decode,
                {
                    "image_embeddings": image_embeddings,
                    "point_coords": coords[prompt : prompt + 1],
                    "point_labels": labels[prompt : prompt + 1],
                    "mask_input": given,
                    "has_mask_input": np.array([mask_input is not None], np.float32),
                },
            )
            masks.append(results["low_res_masks"])
            predictions.append(results["iou_predictions"])
        return np.concatenate(masks), np.concatenate(predictions)

    def _ask(self, function: Any, feeds: dict[str, Floats]) -> dict[str, Floats]:
        from coreai.runtime import NDArray as Array

        async def answer() -> dict[str, Floats]:
            found = await function(
                {name: Array(np.ascontiguousarray(value, np.float32)) for name, value in feeds.items()}
            )
            return {name: np.array(value.numpy(), np.float32) for name, value in found.items()}

        return self._loop.run(answer())


class _Loop:
    """An event loop in a thread of its own: Apple's runtime is asynchronous, and a notebook has a loop already.

    Attributes:
        models: what was loaded, to be released at the end.
    """

    def __init__(self) -> None:
        self.models = AsyncExitStack()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="coreai", daemon=True)
        self._thread.start()

    def run(self, answer: Coroutine[Any, Any, Answer]) -> Answer:
        """Wait for an answer."""
        return asyncio.run_coroutine_threadsafe(answer, self._loop).result()

    def close(self) -> None:
        """Release the models and end the thread; a second time does nothing."""
        if self._loop.is_closed():
            return
        self.run(self.models.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
