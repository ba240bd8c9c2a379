"""A model that takes everything bright for the object, and datasets of a few pixels for it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilesam_export.accuracy.subject import Subject
from reference.predictor import BasePredictor
from reference.prompts import Prompts

FACTS = {
    "target": "brightness",
    "precision": "float32",
    "image_size": 64,
    "weights": "none",
    "weights_sha256": "0" * 64,
}


class Brightness(BasePredictor):
    """Whatever is asked: row 0 is what is bright, rows 1 to 3 its left half, the same again, and everything."""

    image_size = 64

    def __init__(self) -> None:
        super().__init__()
        self.encoded = 0
        self.asked = 0

    def weights_id(self) -> str:
        return "brightness"

    def _encode(self, resized: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.encoded += 1
        square = np.zeros((64, 64), np.float32)
        square[: resized.shape[0], : resized.shape[1]] = resized.mean(axis=2)
        embedding = np.zeros((1, 256, 4, 4), np.float32)
        embedding.reshape(-1)[: 64 * 64] = square.reshape(-1)
        return embedding

    def _decode(self, prompts: Prompts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        assert self.image_embeddings is not None
        self.asked += len(prompts)
        bright = self.image_embeddings.reshape(-1)[: 64 * 64].reshape(16, 4, 16, 4).mean((1, 3)) - 100
        left = np.where(np.arange(16) < 8, bright, -100)
        low_res = np.tile(np.stack([bright, left, bright, np.full((16, 16), 50)]), (len(prompts), 1, 1, 1))
        return low_res.astype(np.float32), np.tile(np.array([0.8, 0.5, 0.7, 0.1], np.float32), (len(prompts), 1))


def subject_of(predictor: BasePredictor) -> Subject:
    return Subject(predictor, dict(FACTS), "brightness", None)


def write_photos(folder: Path, count: int = 5) -> list[dict[str, Any]]:
    """Photos of 64 x 64 with one bright square each; returns COCO's annotations of the squares."""
    folder.mkdir(parents=True, exist_ok=True)
    annotations = []
    for number in range(count):
        x, y, side = 4 * number, 8, 24 + 4 * number
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[y : y + side, x : x + side] = 200
        Image.fromarray(pixels).save(folder / f"photo{number}.png")
        corners = [x, y, x + side, y, x + side, y + side, x, y + side]
        annotations.append(
            {
                "id": 10 + number, "image_id": number, "category_id": 1, "iscrowd": 0, "area": side**2,
                "bbox": [x, y, side, side], "segmentation": [corners],
            }
        )  # fmt: skip
    return annotations


def write_coco(path: Path, annotations: list[Any], count: int = 5) -> Path:
    images = [{"id": n, "file_name": f"photo{n}.png", "height": 64, "width": 64} for n in range(count)]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path
