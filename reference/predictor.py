"""Predict masks for one photo and many prompts, with the semantics of SAM's ``SamPredictor`` (Apache-2.0)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from reference import embedding_file
from reference.checkpoint import weights_sha256
from reference.errors import PromptError
from reference.images import as_rgb
from reference.mobile_sam import MobileSam
from reference.prompts import Prompts, check_prompts, one_as_batch, prompts_at_a_time
from reference.transforms import logits_to_masks, resize_longest_side

LARGEST_ANSWER_BYTES = 8 * 10**9  # of masks, a byte a pixel, or of logits
Prediction = tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Answer:
    """What B prompts gave, drawn where that is wanted.

    Attributes:
        iou_predictions: (B, C).
        draw: the (n, S/4, S/4) logits of some rows of one prompt, by their numbers.
    """

    iou_predictions: NDArray[np.float32]
    draw: Callable[[int, NDArray[np.int64]], NDArray[np.float32]]


class BasePredictor(ABC):
    """Everything about a prompt and a photo that does not depend on who computes: the reference or an artifact."""

    image_size: int

    def __init__(self) -> None:
        self.original_size: tuple[int, int] | None = None
        self.image_embeddings: NDArray[np.float32] | None = None

    @abstractmethod
    def _encode(self, resized: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed a (H, W, 3) photo already at model-frame size, unpadded, as (1, 256, S/16, S/16)."""

    @abstractmethod
    def _decode(self, prompts: Prompts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Decode prompts on the present embedding to (B, 4, S/4, S/4) logits and (B, 4) IoU predictions."""

    def _decode_to_draw(self, prompts: Prompts) -> Answer:
        """As ``_decode``, in two steps where the engine has two: the masks are drawn when they are asked for."""
        logits, iou = self._decode(prompts)
        return Answer(iou, lambda prompt, rows: logits[prompt, rows])

    @property
    def concurrency(self) -> int:
        """How many threads may ask for an ``answer`` at a time."""
        return 1

    @property
    def best_batch(self) -> int:
        """Prompts of an ``answer`` that are fastest together: here as many as ``DECODING_BYTES`` has room for."""
        click = Prompts(np.zeros((1, 1, 2), np.float32), np.zeros((1, 1), np.float32), None, None)
        return prompts_at_a_time(click, self.image_size)

    @abstractmethod
    def weights_id(self) -> str:
        """What identifies the weights in an embedding file."""

    def set_image(self, image: NDArray[np.uint8] | Image.Image) -> None:
        """Embed a photo; later predictions are about it.

        Args:
            image: (H, W, 3) uint8 RGB, or a PIL image (turned upright by its EXIF orientation). Grey, RGBA
                and 16-bit images are converted, see ``images.as_rgb``.

        Raises:
            ImageError: if it is no such image; the earlier photo then stays set.
        """
        rgb = as_rgb(image)
        embeddings = self._encode(resize_longest_side(rgb, self.image_size))
        self.image_embeddings, self.original_size = embeddings, (rgb.shape[0], rgb.shape[1])

    def _require_image(self) -> tuple[int, int]:
        if self.original_size is None:
            raise PromptError("no image is set; call set_image(image) or load_embedding(path) first")
        return self.original_size

    def save_embedding(self, path: str | Path) -> None:
        """Write the present embedding to a versioned safetensors file, to be used again without the encoder."""
        size = self._require_image()
        assert self.image_embeddings is not None
        embedding_file.save(path, self.image_embeddings, size, self.image_size, self.weights_id())

    def load_embedding(self, path: str | Path) -> None:
        """Take the embedding from ``save_embedding``'s file instead of encoding a photo.

        Raises:
            EmbeddingFileError: if it is no such file, or was made with other weights or another image size.
        """
        self.image_embeddings, self.original_size = embedding_file.load(path, self.image_size, self.weights_id())

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
    ) -> Prediction:
        """Predict masks for one prompt in the photo's pixels.

        Args:
            point_coords: (N, 2) x, y.
            point_labels: (N,) of 1 foreground, 0 background.
            box: (4,) XYXY.
            mask_input: (1, S/4, S/4) logits, as returned by an earlier prediction.
            multimask_output: three masks (best for one ambiguous click) instead of one.

        Returns:
            masks (C, H, W) bool at the photo's size, iou_predictions (C,), low_res_masks (C, S/4, S/4)
            logits; C is 3 or 1.

        Raises:
            PromptError: without image or prompt, for wrong shapes, unknown labels or non-finite numbers.
        """
        points, labels, boxes, logits = one_as_batch(point_coords, point_labels, box, mask_input, self.image_size)
        masks, iou, low_res = self.predict_batch(points, labels, boxes, logits, multimask_output)
        return masks[0], iou[0], low_res[0]

    def predict_batch(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
    ) -> Prediction:
        """Predict masks for B prompts of one kind: (B, N, 2), (B, N), (B, 4) and (B, 1, S/4, S/4) arrays.

        They are decoded in chunks of ``prompts.DECODING_BYTES``; only the answer grows with B.

        Returns:
            masks (B, C, H, W), iou_predictions (B, C), low_res_masks (B, C, S/4, S/4), as in ``predict``.

        Raises:
            PromptError: as ``predict``, and for masks that take more than ``LARGEST_ANSWER_BYTES`` together.
        """
        return self._predict(point_coords, point_labels, boxes, mask_input, self._rows(multimask_output))

    def predict_every_mask(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
    ) -> Prediction:
        """As ``predict``: the single mask and then the three, decoded once. C is 4, or 1 if the decoder chooses."""
        points, labels, boxes, logits = one_as_batch(point_coords, point_labels, box, mask_input, self.image_size)
        masks, iou, low_res = self._predict(points, labels, boxes, logits, self._every_row())
        return masks[0], iou[0], low_res[0]

    def _predict(
        self,
        point_coords: ArrayLike | None,
        point_labels: ArrayLike | None,
        boxes: ArrayLike | None,
        mask_input: ArrayLike | None,
        rows: slice,
    ) -> Prediction:
        size = height, width = self._require_image()
        prompts = check_prompts(point_coords, point_labels, boxes, mask_input, size, self.image_size)
        self._require_room("masks", prompts, rows, height * width)
        iou, low_res = self._decode_in_chunks(prompts, rows)
        return logits_to_masks(low_res, size, self.image_size), iou, low_res

    def predict_logits(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As ``predict_batch``, without the masks at full size: (B, C) IoU predictions, (B, C, S/4, S/4) logits."""
        size = self._require_image()
        prompts = check_prompts(point_coords, point_labels, boxes, mask_input, size, self.image_size)
        return self._decode_in_chunks(prompts, self._rows(multimask_output))

    def answer(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        multimask_output: bool = True,
    ) -> Answer:
        """As ``predict_logits``, for few prompts (they are decoded together), whose masks may not all be wanted."""
        size, rows = self._require_image(), self._rows(multimask_output)
        answer = self._decode_to_draw(check_prompts(point_coords, point_labels, boxes, None, size, self.image_size))
        return Answer(answer.iou_predictions[:, rows], lambda prompt, which: answer.draw(prompt, rows.start + which))

    def _rows(self, multimask_output: bool) -> slice:
        """Which of the decoder's rows are the answer."""
        return slice(1, 4) if multimask_output else slice(0, 1)

    def _every_row(self) -> slice:
        """All the rows that the decoder has."""
        return slice(0, 4)

    def _decode_in_chunks(self, prompts: Prompts, rows: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(B, C) IoU predictions and (B, C, S/4, S/4) logits of the rows."""
        self._require_room("logits", prompts, rows, (self.image_size // 4) ** 2 * 4)
        count, side, step = rows.stop - rows.start, self.image_size // 4, prompts_at_a_time(prompts, self.image_size)
        iou = np.empty((len(prompts), count), np.float32)
        low_res = np.empty((len(prompts), count, side, side), np.float32)
        for start in range(0, len(prompts), step):
            chunk = slice(start, start + step)
            logits, predicted = self._decode(prompts[chunk])
            low_res[chunk], iou[chunk] = logits[:, rows], predicted[:, rows]
        return iou, low_res

    @staticmethod
    def _require_room(what: str, prompts: Prompts, rows: slice, bytes_each: int) -> None:
        needed = len(prompts) * (rows.stop - rows.start) * bytes_each
        if needed > LARGEST_ANSWER_BYTES:
            raise PromptError(
                f"the {what} of {len(prompts):,} prompts take {needed / 1e9:,.1f} GB, expected at most "
                f"{LARGEST_ANSWER_BYTES / 1e9:g} GB; give fewer prompts at a time"
            )


class Predictor(BasePredictor):
    """The reference predictor.

    Args:
        sam: the model, in eval mode as ``load_mobile_sam`` returns it.
    """

    def __init__(self, sam: MobileSam) -> None:
        super().__init__()
        self.sam = sam
        self.image_size = sam.image_size

    def weights_id(self) -> str:
        """sha256 of the weights, as in a bundle's manifest."""
        return weights_sha256(self.sam)

    @torch.inference_mode()
    def _encode(self, resized: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.sam.training:
            raise ValueError(
                "the model is in training mode, where a photo changes its BatchNorm; call sam.eval() first"
            )
        image = torch.from_numpy(resized).to(self.sam.device).permute(2, 0, 1)[None].float()  # HWC -> BCHW
        embeddings: NDArray[np.float32] = self.sam.image_encoder(self.sam.normalise_and_pad(image)).cpu().numpy()
        return embeddings

    @torch.inference_mode()
    def _decode(self, prompts: Prompts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        def tensor(array: NDArray[np.float32] | None) -> torch.Tensor | None:
            return None if array is None else torch.from_numpy(array).to(self.sam.device)

        embeddings, points, labels = tensor(self.image_embeddings), tensor(prompts.points), tensor(prompts.labels)
        assert embeddings is not None
        low_res, iou = self.sam.predict_masks(
            embeddings,
            None if points is None or labels is None else (points, labels),
            tensor(prompts.boxes),
            tensor(prompts.masks),
        )
        return low_res.cpu().numpy(), iou.cpu().numpy()
