"""Generated scenes whose objects are cut-outs: the second family, beside the silhouettes of `scenes.py`.

Grounds and light are the first family's. Cut-outs are scaled, turned, mirrored, lit and tinted; they cast shadows and
hide one another. A pixel's part is its region of like colour, its object the whole cut-out, its group the like cut-outs
beside it.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from reference.training.scenes.cutouts import SIDE, Cutouts, open_cutouts
from reference.training.scenes.scenes import MOST_IDS, Float, Scene, ScenePainter, covered
from reference.training.scenes.textures import texture_bank

_SHAPES = 0.15  # share of objects that are painted silhouettes, as in the other family


class CutoutSceneGenerator:
    """Makes scene number n of a split from prepared cut-outs; see `cutouts.prepare_cutouts`."""

    def __init__(self, prepared: Path, split: str = "train", image_size: int = 224) -> None:
        """Map the cut-outs and load the texture bank.

        Args:
            prepared: what `prepare_cutouts` wrote.
            split: "train" or "held-out"; they share neither seeds, textures nor objects.
            image_size: side of the square scenes in pixels.
        """
        self.bank = texture_bank(split)
        self.cutouts = open_cutouts(prepared, split)
        self.image_size = image_size
        self.first_seed = 2**41 if split == "train" else 2**42

    def __call__(self, number: int, difficulty: float | None = None) -> Scene:
        """Paint a scene; arguments as for `SceneGenerator`."""
        rng = np.random.default_rng(self.first_seed + number)
        level = float(rng.uniform()) if difficulty is None else difficulty
        return _CutoutPainter(rng, self.bank, self.cutouts, self.image_size, level).paint()


class _CutoutPainter(ScenePainter):
    def __init__(
        self, rng: np.random.Generator, bank: NDArray[np.uint8], cutouts: Cutouts, size: int, difficulty: float
    ) -> None:
        super().__init__(rng, bank, size, difficulty)
        self.cutouts = cutouts

    def _object_count(self) -> int:
        return max(1, round(super()._object_count() * 0.6))  # cut-outs are larger than silhouettes

    def _lone_object(self) -> int:
        if self.rng.uniform() < _SHAPES:
            return super()._lone_object()
        radius = self._cutout_radius()
        self._cutout(self._row(self._kind()), self._place(radius), radius, self._turn())
        self.next_id[2] += 1
        return 1

    def _group(self) -> int:
        """Like cut-outs side by side; one group id for all."""
        rng, kind, count = self.rng, self._kind(), int(self.rng.integers(2, 5))
        row = self._row(kind)
        radius, turn = min(self._cutout_radius(), 0.22 * self.size), self._turn()
        centre, direction = np.array(self._place(radius)), rng.uniform(0, 2 * np.pi)
        for _ in range(count):
            at = (float(centre[0]), float(centre[1]))
            self._cutout(row, at, radius * rng.uniform(0.85, 1.15), turn + rng.normal(0, 0.15))
            direction += rng.normal(0, 0.7)
            centre = centre + radius * rng.uniform(1.2, 2.0) * np.array([np.cos(direction), np.sin(direction)])
        self.next_id[2] += 1
        return count

    def _kind(self) -> int:
        return int(self.rng.integers(len(self.cutouts.kinds)))

    def _row(self, kind: int) -> int:
        rows = self.cutouts.kinds[kind]
        return rows[int(self.rng.integers(len(rows)))]

    def _cutout_radius(self) -> float:
        """Half the side of the cut-out's picture, in pixels."""
        high = 0.5 * self.size if self.size < 512 else 0.42 * self.size
        return float(np.exp(self.rng.uniform(np.log(22.0), np.log(high))))

    def _turn(self) -> float:
        rng = self.rng
        return float(rng.uniform(0, 2 * np.pi) if rng.uniform() < 0.15 else rng.normal(0, 0.25))

    def _cutout(self, row: int, centre: tuple[float, float], radius: float, turn: float) -> None:
        """Paint one cut-out with its shadow; takes the next object id."""
        rng = self.rng
        reach = int(radius * 1.45) + 2
        left, top = max(int(centre[0]) - reach, 0), max(int(centre[1]) - reach, 0)
        w, h = min(int(centre[0]) + reach, self.size) - left, min(int(centre[1]) + reach, self.size) - top
        if w < 8 or h < 8:
            return
        scale, stretch = 2 * radius / SIDE, np.exp(rng.normal(0, 0.08))
        mirrored = -1.0 if rng.uniform() < 0.5 else 1.0
        c, s = np.cos(turn), np.sin(turn)
        matrix = np.array([[c, -s], [s, c]]) @ np.diag([mirrored * scale * stretch, scale / stretch])
        shift = np.array([centre[0] - left, centre[1] - top]) - matrix @ (SIDE / 2, SIDE / 2)
        forward = np.concatenate([matrix, shift[:, None]], 1)
        # averaging before a strong reduction keeps edges clean
        source = self.cutouts.pixels[row]
        if scale < 0.4:
            source = cv2.blur(source, (int(1 / scale),) * 2)
        warped = cv2.warpAffine(source, forward, (w, h), flags=cv2.INTER_LINEAR)
        alpha = np.ascontiguousarray(warped[..., 3])
        regions = cv2.warpAffine(self.cutouts.regions[row], forward, (w, h), flags=cv2.INTER_NEAREST)
        parts = max(1, int(self.cutouts.regions[row].max()))
        if np.count_nonzero(alpha > 127) < 20 or self.next_id[0] + parts > MOST_IDS:
            return
        if rng.uniform() < 0.6:
            self._shadow(left, top, alpha, radius)
        window = covered(alpha)
        colour = self._tinted(warped[window][..., :3].astype(np.float32))
        colour *= self._shading(alpha, (centre[0] - left, centre[1] - top), radius, window)[..., None]
        ids = (int(self.next_id[0]), int(self.next_id[1]), int(self.next_id[2]))
        alpha, regions = alpha[window], regions[window]
        left, top = left + window[1].start, top + window[0].start
        h, w = alpha.shape
        self._paint_region((left, top), alpha, colour, ids)
        shown = alpha > 127
        self.ids[0, top : top + h, left : left + w][shown] = ids[0] + np.maximum(regions[shown], 1) - 1
        self.next_id[0] += parts
        self.next_id[1] += 1

    def _tinted(self, colour: Float) -> Float:
        """Another light, less colour, another paint: a (h, w, 3) surface of the same object."""
        rng = self.rng
        grey = colour @ np.array([0.299, 0.587, 0.114], np.float32)
        saturation = rng.choice((0.0, 0.5, 1.0), p=(0.1, 0.35, 0.55)) * rng.uniform(0.8, 1.2)
        colour = grey[..., None] + np.float32(saturation) * (colour - grey[..., None])
        if rng.uniform() < 0.15:
            colour = colour[..., rng.permutation(3)]
        gain = rng.uniform(0.6, 1.15) * np.exp(rng.normal(0, 0.08, 3))
        return np.asarray(np.clip(colour, 0, 255) / 255, np.float32) ** np.float32(
            np.exp(rng.normal(0, 0.2))
        ) * np.asarray(255 * gain, np.float32)
