"""Predict masks for one photo and many prompts, with the semantics of SAM's ``SamPredictor`` (Apache-2.0)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
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
from reference.transforms import boxes_to_model_frame, logits_to_masks, resize_longest_side, to_model_frame

LARGEST_NUMBER = 1e9  # of a coordinate or logit; float32 has room for its square
Prediction = tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Prompts:
    """B checked prompts in the model frame, float32; what is absent is None.

    Attributes:
        points: (B, N, 2) x, y.
        labels: (B, N), 0 background or 1 foreground (-1 padding is accepted).
        boxes: (B, 4) XYXY.
        masks: (B, 1, S/4, S/4) logits.
    """

    points: NDArray[np.float32] | None
    labels: NDArray[np.float32] | None
    boxes: NDArray[np.float32] | None
    masks: NDArray[np.float32] | None


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
        masks, iou, low_res = self.predict_batch(
            None if point_coords is None else _numbers("point_coords", point_coords)[None],
            None if point_labels is None else _numbers("point_labels", point_labels)[None],
            None if box is None else _numbers("box", box).reshape(1, -1),
            None if mask_input is None else _numbers("mask_input", mask_input)[None],
            multimask_output,
        )
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

        Returns:
            masks (B, C, H, W), iou_predictions (B, C), low_res_masks (B, C, S/4, S/4), as in ``predict``.
        """
        iou, low_res = self.predict_logits(point_coords, point_labels, boxes, mask_input, multimask_output)
        return logits_to_masks(low_res, self._require_image(), self.image_size), iou, low_res

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
        low_res, iou = self._decode(prompts)
        rows = slice(1, 4) if multimask_output else slice(0, 1)
        return iou[:, rows], low_res[:, rows]


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


def check_prompts(
    point_coords: ArrayLike | None,
    point_labels: ArrayLike | None,
    boxes: ArrayLike | None,
    mask_input: ArrayLike | None,
    size: tuple[int, int],
    image_size: int,
) -> Prompts:
    """Check a batch of prompts in image-frame pixels and bring it to the model frame; see ``predict_batch``.

    Raises:
        PromptError: with what was got and what was expected.
    """
    if point_coords is None and boxes is None and mask_input is None:
        raise PromptError("got no prompt; give point_coords with point_labels, a box, or mask_input")
    if (point_coords is None) != (point_labels is None):
        raise PromptError("point_coords and point_labels go together; give one label (1 or 0) for every point")
    low_res = image_size // 4
    points_array = labels_array = boxes_array = masks_array = None
    if point_coords is not None and point_labels is not None:
        points_array = _finite("point_coords", point_coords, (None, None, 2))
        labels_array = _finite("point_labels", point_labels, points_array.shape[:2])
        if not np.isin(labels_array, (-1, 0, 1)).all():
            raise PromptError(
                f"got point labels {sorted(set(labels_array.ravel().tolist()))}, expected 1 foreground or 0 background"
            )
        if points_array.shape[1] == 0:
            raise PromptError("got an empty list of points; leave point_coords out, or give at least one point")
        points_array = to_model_frame(points_array, size, image_size)
    if boxes is not None:
        boxes_array = boxes_to_model_frame(_finite("boxes", boxes, (None, 4)), size, image_size)
    if mask_input is not None:
        masks_array = _finite("mask_input", mask_input, (None, 1, low_res, low_res))
    batches = {len(a) for a in (points_array, boxes_array, masks_array) if a is not None}
    if len(batches) != 1 or 0 in batches:
        raise PromptError(
            f"got batches of {sorted(batches)} prompts, expected one or more, as many for points as for boxes and masks"
        )
    return Prompts(
        *(None if a is None else a.astype(np.float32) for a in (points_array, labels_array, boxes_array, masks_array))
    )


def _numbers(name: str, value: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise PromptError(f"{name} is not an array of numbers ({error})") from error


def _finite(name: str, value: ArrayLike, shape: Sequence[int | None]) -> NDArray[np.float64]:
    array = _numbers(name, value)
    expected = tuple("B" if i == 0 and n is None else "N" if n is None else n for i, n in enumerate(shape))
    matches = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not matches:
        raise PromptError(f"got {name} of shape {array.shape}, expected ({', '.join(map(str, expected))})")
    if not np.isfinite(array).all():
        raise PromptError(f"{name} holds NaN or infinite numbers; expected finite ones")
    if array.size and abs(array).max() > LARGEST_NUMBER:
        raise PromptError(
            f"{name} holds {array.flat[abs(array).argmax()]:g}, expected numbers up to {LARGEST_NUMBER:g}"
        )
    return array
