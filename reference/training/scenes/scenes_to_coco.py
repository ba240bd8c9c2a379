"""Write generated scenes as COCO ships its photos: a folder of pictures and `instances.json`, masks in COCO's RLE.

With it `mobilesam-export accuracy` runs here, on masks that are exact:

    python -m reference.training scenes --coco scenes --split held-out --count 100 --image-size 1024
    mobilesam-export accuracy dist --images scenes/images --annotations scenes/instances.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reference import run_lengths
from reference.training.scenes.cutout_scenes import CutoutSceneGenerator
from reference.training.scenes.scenes import Scene, SceneGenerator

SMALLEST_AREA = 64  # visible pixels of an object


def write_coco(
    directory: Path,
    count: int,
    image_size: int = 1024,
    split: str = "held-out",
    first: int = 0,
    cutouts: Path | None = None,
) -> int:
    """Write scenes first..first + count, without loss; the document comes last, so that with it all are there.

    Returns:
        The number of annotated objects.
    """
    generator = CutoutSceneGenerator(cutouts, split, image_size) if cutouts else SceneGenerator(split, image_size)
    (directory / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(first, first + count):
        scene = generator(number)
        name = f"scene_{number:06d}.png"
        Image.fromarray(scene.image).save(directory / "images" / name)
        images.append({"id": number, "file_name": name, "height": image_size, "width": image_size})
        for entry in objects_of(scene):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **entry})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    part = directory / "instances.json.part"
    part.write_text(json.dumps(document), encoding="utf-8")
    part.replace(directory / "instances.json")
    return len(annotations)


def objects_of(scene: Scene) -> list[dict[str, Any]]:
    """COCO's annotations of the objects (not of their parts, nor of groups), each by what is seen of it."""
    objects, found = scene.ids[1], []
    for name in np.unique(objects[objects >= scene.things]):
        mask = objects == name
        area = int(np.count_nonzero(mask))
        if area < SMALLEST_AREA:
            continue
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        left, top = int(columns[0]), int(rows[0])
        box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
        found.append(
            {"category_id": 1, "iscrowd": 0, "area": area, "bbox": box, "segmentation": run_lengths.encode(mask)}
        )
    return found
