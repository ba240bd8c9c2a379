"""Mask IoU of a model on held-out generated scenes, one click or one box an object, beside what needs no model.

The click is the object's innermost pixel, the box is tight. A click or a box is answered by four masks: `own` is the
one among tokens 1 to 3 whose predicted IoU is highest, as in SAM's ONNX wrapper; `single` is token 0; `best_of_three`
is the best of tokens 1 to 3, which only the truth can tell. `quality_error` is how far the predicted IoU of `own` is
from its IoU. `three_clicks` is the mask after two corrections: each adds a click where the mask before it was most
wrong, and gives that mask's logits back as mask input.

For comparison: the filled box, a disc around the click with one radius that is best over all objects, and one with
each object's own best radius.

    python -m reference.training evaluate-scenes --checkpoint demo --scenes 200
    python -m reference.training evaluate-scenes --objects FOLDER           # scenes of held-out cut-outs
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from reference.checkpoint import weights_sha256
from reference.mobile_sam import MobileSam
from reference.training.scenes.cutout_scenes import CutoutSceneGenerator
from reference.training.scenes.scenes import Scene, SceneGenerator
from reference.transforms import logits_to_masks

Mask = NDArray[np.bool_]
SMALLEST_SIDE = 32  # pixels: the square root of an object's visible area
PROMPTS_AT_ONCE = 16


@dataclass(frozen=True)
class PromptedObject:
    """One object of a scene: its mask, innermost pixel (x, y) and tight box (XYXY, pixel centres)."""

    mask: Mask
    point: tuple[int, int]
    box: tuple[int, int, int, int]


def prompted_objects(scene: Scene, most: int, seed: int) -> list[PromptedObject]:
    """Pick up to `most` objects at random among those with at least 32x32 visible pixels."""
    names, areas = np.unique(scene.ids[1], return_counts=True)
    names = names[(names >= scene.things) & (areas >= SMALLEST_SIDE**2)]
    chosen = np.random.default_rng(seed).permutation(names)[:most]
    return [_prompt(scene.ids[1] == name) for name in chosen]


def _prompt(mask: Mask) -> PromptedObject:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return PromptedObject(mask, _innermost(mask), (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])))


def iou(found: Mask, truth: Mask) -> float:
    """Intersection over union; two empty masks agree."""
    either = np.count_nonzero(found | truth)
    return np.count_nonzero(found & truth) / either if either else 1.0


@torch.inference_mode()
def masks_of_prompts(
    sam: MobileSam, embeddings: torch.Tensor, objects: list[PromptedObject], kind: str, size: tuple[int, int]
) -> Iterator[tuple[PromptedObject, NDArray[np.bool_], NDArray[np.float32]]]:
    """Yield each object with the (4, H, W) masks and (4,) IoU predictions that its click or box gives."""
    for start in range(0, len(objects), PROMPTS_AT_ONCE):
        part = objects[start : start + PROMPTS_AT_ONCE]
        if kind == "point":
            coords = torch.tensor([[o.point] for o in part], dtype=torch.float32)
            low_res, quality = sam.predict_masks(embeddings, (coords, torch.ones(len(part), 1)))
        else:
            low_res, quality = sam.predict_masks(
                embeddings, boxes=torch.tensor([o.box for o in part], dtype=torch.float32)
            )
        for o, logits, q in zip(part, low_res.numpy(), quality.numpy(), strict=True):
            yield o, logits_to_masks(logits[None], size, sam.image_size)[0], q


def _disc_ious(o: PromptedObject, radii: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of the object with discs around its click, for each whole radius, without drawing them."""
    h, w = o.mask.shape
    y, x = np.ogrid[0:h, 0:w]
    distance = np.hypot(x - o.point[0], y - o.point[1]).astype(np.int64)
    longest = int(radii[-1]) + 1
    disc = np.bincount(np.minimum(distance.ravel(), longest), minlength=longest + 1).cumsum()[radii]
    inside = np.bincount(np.minimum(distance[o.mask], longest), minlength=longest + 1).cumsum()[radii]
    found: NDArray[np.float64] = inside / (np.count_nonzero(o.mask) + disc - inside)
    return found


def _innermost(mask: Mask) -> tuple[int, int]:
    """x, y of the pixel farthest from the mask's edge."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x), int(y)


@torch.inference_mode()
def corrected_iou(sam: MobileSam, embeddings: torch.Tensor, o: PromptedObject, clicks: int) -> float:
    """IoU of the mask after `clicks` clicks.

    The first click is the object's innermost pixel; its mask is the best of tokens 1 to 3 by predicted IoU. Each later
    click falls where the mask before it was most wrong, that mask's logits are the mask input, and token 0 answers, as
    SAM's predictor advises.
    """
    coords, labels = [o.point], [1]
    earlier: torch.Tensor | None = None
    size = (sam.image_size, sam.image_size)
    for n in range(clicks):
        points = torch.tensor([coords], dtype=torch.float32), torch.tensor([labels])
        low_res, quality = sam.predict_masks(embeddings, points, mask_input=earlier)
        token = 1 + int(quality[0, 1:].argmax()) if n == 0 else 0
        earlier = low_res[:, token : token + 1]
        mask = logits_to_masks(earlier.numpy(), size, sam.image_size)[0, 0]
        missed, excess = o.mask & ~mask, mask & ~o.mask
        wrong = max((missed, excess), key=_largest_piece)
        coords.append(_innermost(wrong))
        labels.append(int(wrong is missed))
    return iou(mask, o.mask)


def _largest_piece(mask: Mask) -> int:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return int(stats[1:, cv2.CC_STAT_AREA].max(initial=0))


def evaluate_scenes(
    sam: MobileSam, scenes: int = 200, first: int = 0, objects_each: int = 4, cutouts: Path | None = None
) -> dict[str, float]:
    """Evaluate on scenes first..first + scenes of the held-out split at the model's image size.

    Args:
        sam: the model.
        scenes: how many.
        first: number of the first.
        objects_each: prompted objects a scene.
        cutouts: scenes of these prepared cut-outs instead of silhouettes.

    Raises:
        ValueError: no object there is large enough.
    """
    generator = (
        CutoutSceneGenerator(cutouts, "held-out", sam.image_size)
        if cutouts
        else SceneGenerator("held-out", sam.image_size)
    )
    sam.image_encoder.to(memory_format=torch.channels_last)
    radii = np.unique(np.geomspace(8, sam.image_size // 2, 64).astype(np.int64))
    scores: dict[str, list[float]] = {}
    discs = []
    for n in range(first, first + scenes):
        scene = generator(n)
        objects = prompted_objects(scene, objects_each, seed=n)
        if not objects:
            continue
        size = (sam.image_size, sam.image_size)
        image = torch.from_numpy(scene.image).permute(2, 0, 1)[None].float()
        with torch.inference_mode():
            embeddings = sam.image_encoder(sam.normalise_and_pad(image))
        for kind in ("point", "box"):
            for o, masks, quality in masks_of_prompts(sam, embeddings, objects, kind, size):
                each = [iou(mask, o.mask) for mask in masks]
                for name, value in (
                    ("own", each[1 + int(quality[1:].argmax())]),
                    ("single", each[0]),
                    ("best_of_three", max(each[1:])),
                    ("quality_error", abs(float(quality[1:].max()) - each[1 + int(quality[1:].argmax())])),
                ):
                    scores.setdefault(f"{kind}_{name}", []).append(value)
        for o in objects:
            scores.setdefault("three_clicks", []).append(corrected_iou(sam, embeddings, o, 3))
            left, top, right, bottom = o.box
            scores.setdefault("filled_box", []).append(
                np.count_nonzero(o.mask) / ((right - left + 1) * (bottom - top + 1))
            )
            discs.append(_disc_ious(o, radii))
        if (n + 1 - first) % 20 == 0:
            means = ", ".join(f"{k} {np.mean(scores[k]):.3f}" for k in ("point_own", "box_own"))
            print(f"{n + 1 - first}/{scenes} scenes, {len(discs)} objects: {means}", file=sys.stderr, flush=True)
    if not discs:
        raise ValueError(f"no object is large enough in {scenes} scenes from {first} on; take more scenes")
    table = np.array(discs)
    result = {name: float(np.mean(values)) for name, values in scores.items()}
    result["disc_one_radius"] = float(table.mean(0).max())
    result["disc_own_radius"] = float(table.max(1).mean())
    return {"scenes": scenes, "objects": len(discs), **{name: round(value, 4) for name, value in result.items()}}


def circumstances(sam: MobileSam) -> dict[str, object]:
    """What a figure needs beside it: weights, machine and versions."""
    cpu = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
        if cpu.exists()
        else []
    )
    return {
        "weights": sam.weights_source,
        "weights_sha256": weights_sha256(sam),
        "machine": f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "timm", "numpy", "opencv-python-headless")},
    }
