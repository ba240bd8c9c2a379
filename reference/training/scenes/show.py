"""Overlays to look at: what a model answers to clicks and boxes, on photos or on held-out scenes.

    python -m reference.training show --checkpoint demo --out shown.png photo.jpg

Without photos it shows held-out scenes: one click and one box each, the object outlined in white, whatever came out.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from reference.mobile_sam import MobileSam
from reference.predictor import Predictor
from reference.training.scenes.evaluate_scenes import iou, prompted_objects
from reference.training.scenes.scenes import SceneGenerator

Picture = NDArray[np.uint8]
TILE, CAPTION = 384, 24  # side of a picture, height of the line below it
BLUE = np.array([30, 110, 255])  # rarest among things in photos


def overlay(image: Picture, mask: NDArray[np.bool_], prompt: tuple[float, ...], caption: str) -> Picture:
    """Tint a mask and draw its prompt (x, y or XYXY); returns a tile of fixed size."""
    tinted = image.copy()
    tinted[mask] = (0.4 * image[mask] + 0.6 * BLUE).astype(np.uint8)
    width = max(2, image.shape[1] // 200)
    if len(prompt) == 2:
        cv2.circle(tinted, (round(prompt[0]), round(prompt[1])), 3 * width, (0, 255, 0), -1)
    else:
        left, top, right, bottom = (round(v) for v in prompt)
        cv2.rectangle(tinted, (left, top), (right, bottom), (0, 255, 0), width)
    scale = TILE / max(image.shape[:2])
    small = cv2.resize(tinted, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    tile = np.zeros((TILE + CAPTION, TILE, 3), np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small[:TILE, :TILE]
    cv2.putText(tile, caption, (6, TILE + CAPTION - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1)
    return tile


def answer(predictor: Predictor, prompt: tuple[float, ...]) -> tuple[NDArray[np.bool_], float]:
    """The mask that the model itself rates best among tokens 1 to 3, and its rating."""
    if len(prompt) == 2:
        masks, quality, _ = predictor.predict([prompt], [1])
    else:
        masks, quality, _ = predictor.predict(box=prompt)
    best = int(quality.argmax())
    return masks[best], float(quality[best])


def photo_tiles(sam: MobileSam, image: Picture, prompts: list[tuple[float, ...]]) -> list[Picture]:
    """One tile a prompt."""
    predictor = Predictor(sam)
    predictor.set_image(image)
    tiles = []
    for prompt in prompts:
        mask, quality = answer(predictor, prompt)
        tiles.append(overlay(image, mask, prompt, f"predicted IoU {quality:.2f}"))
    return tiles


def scene_tiles(sam: MobileSam, number: int) -> list[Picture]:
    """A click and a box on one object of a held-out scene."""
    scene = SceneGenerator("held-out", sam.image_size)(number)
    found = prompted_objects(scene, 1, seed=number)
    if not found:
        return []
    predictor = Predictor(sam)
    predictor.set_image(scene.image)
    outlined = scene.image.copy()
    contours, _ = cv2.findContours(found[0].mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(outlined, contours, -1, (255, 255, 255), 3)
    tiles = []
    for prompt in (found[0].point, found[0].box):
        mask, quality = answer(predictor, prompt)
        tiles.append(overlay(outlined, mask, prompt, f"IoU {iou(mask, found[0].mask):.2f}, predicted {quality:.2f}"))
    return tiles


def grid(tiles: list[Picture], columns: int) -> Picture:
    """Arrange tiles in rows.

    Raises:
        ValueError: there are none.
    """
    if not tiles:
        raise ValueError("nothing to show: no object of these scenes is large enough; take more scenes")
    tiles = tiles + [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], 1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows, 0)
