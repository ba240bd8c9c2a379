"""Write generated scenes as SA-1B ships its images: `sa_N.jpg` and `sa_N.json` in a tar file, masks in COCO RLE.

With it every stage of the module runs in miniature, on the format that it runs on at full scale.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference.training.pixels import to_jpeg
from reference.training.scenes.cutout_scenes import CutoutSceneGenerator
from reference.training.scenes.scenes import Scene, SceneGenerator

SMALLEST_AREA = 64  # pixels


def sa1b_annotations(scene: Scene) -> list[dict[str, Any]]:
    """SA-1B's annotations of all parts, objects and groups, each distinct mask once."""
    from pycocotools import mask as coco

    found: list[dict[str, Any]] = []
    seen: set[bytes] = set()
    for ids in scene.ids:
        for name in np.unique(ids[ids >= scene.things]):
            mask: NDArray[np.bool_] = ids == name
            key = np.packbits(mask).tobytes()
            if mask.sum() < SMALLEST_AREA or key in seen:
                continue
            seen.add(key)
            code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
            segmentation = {"size": code["size"], "counts": code["counts"].decode("ascii")}
            found.append(
                {
                    "id": len(found),
                    "segmentation": segmentation,
                    "bbox": coco.toBbox(code).tolist(),
                    "area": int(mask.sum()),
                }
            )
    return found


def write_tar(
    path: Path,
    count: int,
    image_size: int = 1024,
    split: str = "train",
    first: int = 0,
    cutouts: Path | None = None,
) -> None:
    """Write scenes first..first + count, the whole tar or none; of prepared cut-outs where they are given."""
    generator = CutoutSceneGenerator(cutouts, split, image_size) if cutouts else SceneGenerator(split, image_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with tarfile.open(part, "w") as archive:
            for n in range(first, first + count):
                scene = generator(n)
                facts = {"image_id": n, "width": image_size, "height": image_size, "file_name": f"sa_{n}.jpg"}
                document = json.dumps({"image": facts, "annotations": sa1b_annotations(scene)}).encode()
                for name, data in ((f"sa_{n}.jpg", to_jpeg(scene.image)), (f"sa_{n}.json", document)):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
