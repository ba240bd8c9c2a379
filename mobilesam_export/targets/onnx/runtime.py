"""Run the ONNX files with ONNX Runtime on the CPU."""

import os
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from mobilesam_export.errors import ExportError
from mobilesam_export.point_slots import fill_slots
from mobilesam_export.targets.onnx.two_steps import CELLS_AT_ONCE, IOU, TwoSteps, in_order, in_two_steps

Floats = NDArray[np.float32]

# The newer of our two forms: 1.22.1 was seen to refuse them, 1.23.0 to load them and IR version 11.
_OPSET_OF_1_23, _IR_OF_1_23 = 23, 11


def session(
    path: Path, threads: int | None = None, *, save_memory: bool = False, part: onnx.ModelProto | None = None
) -> onnxruntime.InferenceSession:
    """Open one file, with the options that an app should use too.

    Args:
        path: an ONNX file.
        part: of that file, to be opened instead.
        threads: of one operator; None lets the runtime choose.
        save_memory: switch memory patterns off: 296 instead of 493 MB at most for the encoder at 1024, 5 instead of
            16 MB for one prompt of the decoder, at no visible cost in time. Two prompts at a time are 5 % faster with.

    Raises:
        ExportError: if the file is missing, truncated or needs a newer runtime.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what it would print of an error is in the exception
    options.enable_mem_pattern = not save_memory
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL  # the blocked layout needs it
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        model = path if part is None else part.SerializeToString()
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no public base class
        newer = _newer_than_installed(path, str(error))
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(
            newer or f"{path} cannot be loaded by ONNX Runtime {onnxruntime.__version__}: {reason}; export it again"
        ) from error


def _newer_than_installed(path: Path, reason: str) -> str | None:
    """Which ONNX Runtime a file needs, if the installed one refused it for its age; None for another reason."""
    if not re.search(r"till opset|IR version", reason):
        return None
    model = onnx.load(path, load_external_data=False)  # the runtime has read it too, as far as its versions
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    installed = onnxruntime.__version__
    enough = opset <= _OPSET_OF_1_23 and model.ir_version <= _IR_OF_1_23
    needed = "ONNX Runtime 1.23 or later" if enough else f"an ONNX Runtime later than {installed}"
    return (
        f"{path} needs {needed} (it has opset {opset} and IR version {model.ir_version}), {installed} is installed; "
        "pip install -U onnxruntime, or export with --opset 17"
    )


class OnnxRuntime:
    """Encoder and decoder in ONNX Runtime.

    Args:
        encoder: path of the encoder file.
        decoder: path of the decoder file, with our contract or the official one.
        threads: of one operator.

    Attributes:
        image_size: side S of the model frame.
        max_points: slots of a fixed-N decoder, None for any number.
        official: whether the decoder has the official interface, with masks at the photo's own size.
        gives_memory_back: see ``TwoStepRuntime``. At 1024 that is 210 MB of 336, and encoding takes a tenth longer.
    """

    def __init__(self, encoder: Path, decoder: Path, *, threads: int | None = None) -> None:
        self.encoder = session(encoder, threads, save_memory=True)
        self.decoder = session(decoder, threads, save_memory=True)
        self._decoder_path, self._threads = decoder, threads
        self.image_size: int = self.encoder.get_inputs()[0].shape[-1]
        inputs = {entry.name: entry.shape for entry in self.decoder.get_inputs()}
        points = inputs["point_coords"][1]
        self.max_points: int | None = points if isinstance(points, int) else None
        self._fixed_batch = isinstance(inputs["point_coords"][0], int)
        self.official = "orig_im_size" in inputs
        self.gives_memory_back = False

    def encode(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embed (1, 3, S, S) RGB of 0 to 255, padded with the pad colour, as (1, 256, S/16, S/16)."""
        options = onnxruntime.RunOptions()
        if self.gives_memory_back:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        embeddings: NDArray[np.float32] = self.encoder.run(["image_embeddings"], {"image": image}, options)[0]
        return embeddings

    def decode(
        self,
        image_embeddings: NDArray[np.float32],
        point_coords: NDArray[np.float32],
        point_labels: NDArray[np.float32],
        mask_input: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decode B prompts, one after the other: 16 in one run took a fifth longer, and 16 MB each instead of 5 in all.

        Args:
            image_embeddings: (1, 256, S/16, S/16).
            point_coords: (B, N, 2) x, y in the model frame.
            point_labels: (B, N) of ``PointLabel``.
            mask_input: (B, 1, S/4, S/4) logits.

        Returns:
            (B, C, S/4, S/4) logits and (B, C) IoU predictions; C is 4, or 1 for a single-mask file.

        Raises:
            ExportError: for more points than a fixed-N file holds.
        """
        # An official decoder's own masks are not asked for, so the photo's size does not matter.
        size, names = (self.image_size, self.image_size), ["low_res_masks", "iou_predictions"]
        logits, iou = self._decode(names, image_embeddings, point_coords, point_labels, mask_input, size)
        return logits, iou

    def decode_to_photo(
        self,
        image_embeddings: NDArray[np.float32],
        point_coords: NDArray[np.float32],
        point_labels: NDArray[np.float32],
        mask_input: NDArray[np.float32] | None,
        size: tuple[int, int],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """An official decoder's own masks: (B, C, H, W) logits at the photo's size, and the logits they come from."""
        assert self.official
        names = ["masks", "low_res_masks"]
        masks, logits = self._decode(names, image_embeddings, point_coords, point_labels, mask_input, size)
        return masks, logits

    @property
    def concurrency(self) -> int:
        """How many threads may ``attend`` at a time: one a core, each with a core to itself; or one with all."""
        return 1 if self._two_steps is None else self._threads or _cores()

    @property
    def best_batch(self) -> int:
        """Prompts that ``attend`` is fastest with; four take more memory."""
        return 1 if self._fixed_batch else 2

    @cached_property
    def _two_steps(self) -> "_TwoSessions | None":
        parts = in_two_steps(onnx.load(self._decoder_path))
        return None if parts is None else _TwoSessions(self._decoder_path, parts)

    def attend(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats
    ) -> tuple[Floats, Callable[[int, NDArray[np.int64]], Floats]]:
        """Decode B prompts without mask input in two steps.

        Returns:
            (B, 4) IoU predictions, and what draws the (n, S/4, S/4) logits of some rows of one prompt.
        """
        if self._two_steps is None:
            logits, iou = self.decode(image_embeddings, point_coords, point_labels)
            return iou, lambda prompt, rows: logits[prompt, rows]
        if self.max_points is not None:
            point_coords, point_labels = fill_slots(point_coords, point_labels, self.max_points)
        return self._two_steps(image_embeddings, point_coords, point_labels)

    def _decode(
        self,
        names: list[str],
        image_embeddings: NDArray[np.float32],
        point_coords: NDArray[np.float32],
        point_labels: NDArray[np.float32],
        mask_input: NDArray[np.float32] | None,
        size: tuple[int, int],
    ) -> list[NDArray[np.float32]]:
        batch = len(point_labels)
        if self.max_points is not None:
            point_coords, point_labels = fill_slots(point_coords, point_labels, self.max_points)
        low_res = self.image_size // 4
        has_mask = np.array([mask_input is not None], np.float32)
        masks = np.zeros((batch, 1, low_res, low_res), np.float32) if mask_input is None else mask_input
        chunks = []
        for i in range(max(batch, 1)):
            feeds = {
                "image_embeddings": image_embeddings,
                "point_coords": point_coords[i : i + 1].astype(np.float32),
                "point_labels": point_labels[i : i + 1].astype(np.float32),
                "mask_input": masks[i : i + 1].astype(np.float32),
                "has_mask_input": has_mask,
            }
            if self.official:
                feeds["orig_im_size"] = np.array(size, np.float32)
            chunks.append(self.decoder.run(names, feeds))
        return [np.concatenate(output) for output in zip(*chunks, strict=True)]


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _TwoSessions:
    """Both halves of a decoder, each with one thread: prompts are spread over the cores instead."""

    def __init__(self, path: Path, parts: TwoSteps) -> None:
        self._parts = parts
        self._attend = session(path, 1, part=parts.attend)
        self._draw = session(path, 1, part=parts.draw)
        self._maps: int = next(port.shape[1] for port in self._attend.get_inputs() if port.name == parts.maps)

    def __call__(
        self, image_embeddings: Floats, point_coords: Floats, point_labels: Floats
    ) -> tuple[Floats, Callable[[int, NDArray[np.int64]], Floats]]:
        grid = image_embeddings.shape[-1]
        feeds = {"image_embeddings": image_embeddings, "point_coords": point_coords, "point_labels": point_labels}
        feeds[self._parts.maps] = np.zeros((len(point_labels), self._maps, grid**2), np.float32)
        names = [IOU, self._parts.image, self._parts.kernels]
        iou, image, kernels = self._attend.run(names, {k: v.astype(np.float32) for k, v in feeds.items()})
        image = image.reshape(len(iou), -1, image.shape[-1])

        def draw(prompt: int, rows: NDArray[np.int64]) -> Floats:
            mine = kernels[prompt : prompt + 1, rows]
            cells = (image[prompt, start : start + CELLS_AT_ONCE] for start in range(0, grid**2, CELLS_AT_ONCE))
            feeds = ({self._parts.cells: some, self._parts.kernels: mine} for some in cells)
            parts = [self._draw.run([self._parts.logits], feed)[0][0] for feed in feeds]
            return in_order(np.concatenate(parts, axis=1), grid)

        return iou, draw
