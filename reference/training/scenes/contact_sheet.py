"""One picture to judge the generated scenes by.

python -m reference.training scenes --sheet scenes.png
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reference.training.scenes.cutout_scenes import CutoutSceneGenerator
from reference.training.scenes.scenes import SceneGenerator


def contact_sheet(
    generator: SceneGenerator | CutoutSceneGenerator, rows: int = 4, columns: int = 6
) -> NDArray[np.uint8]:
    """Scenes of rising difficulty, each above its object ids in colour."""
    colours = np.random.default_rng(5).integers(40, 256, (256, 3)).astype(np.uint8)
    cells = []
    for n in range(rows * columns):
        scene = generator(n, difficulty=n / max(rows * columns - 1, 1))
        tinted = [
            np.where((ids < scene.things)[..., None], ids[..., None] * np.uint8(30), colours[ids])
            for ids in scene.ids[:2]
        ]
        cells.append(np.concatenate([scene.image, *tinted], 0))
    lines = [np.concatenate(cells[r * columns : (r + 1) * columns], 1) for r in range(rows)]
    return np.concatenate(lines, 0, dtype=np.uint8)
