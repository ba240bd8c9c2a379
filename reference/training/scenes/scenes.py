"""Generated scenes with exact masks at three levels: part, object, group.

A scene is painted back to front ("dead leaves"): one or two background regions, then objects with soft shadows,
shading and rims. Some objects are made of parts (a band, a cut, a spot, a limb), and some stand in groups of like
objects, so that a click has three right answers as it has on a photo. The finished picture gets light, blur, sensor
noise and JPEG artefacts. Every pixel knows its ids exactly.

    python -m reference.training scenes --sheet scenes.png
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from reference.training.scenes.shapes import Silhouette, fill, random_silhouette
from reference.training.scenes.textures import PATTERN_SIZE, texture_bank

Ids = NDArray[np.uint8]
Float = NDArray[np.float32]

Window = tuple[slice, slice]

LEVELS = ("part", "object", "group")
ALL: Window = (slice(0, None), slice(0, None))
MOST_IDS = 250  # uint8 with room to spare


def covered(alpha: NDArray[np.uint8]) -> Window:
    """Rows and columns of an (H, W) coverage that are not empty; paint outside them would not show."""
    x, y, w, h = cv2.boundingRect(alpha)
    return slice(y, y + h), slice(x, x + w)


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        ids: (3, H, W) uint8, the part, object and group each pixel shows. Ids below `things` are background.
        things: First id that belongs to an object, the same at every level.
    """

    image: NDArray[np.uint8]
    ids: Ids
    things: int


class SceneGenerator:
    """Makes scene number n of a split, the same one wherever the libraries have the same versions."""

    def __init__(self, split: str = "train", image_size: int = 224) -> None:
        """Load the texture bank.

        Args:
            split: "train" or "held-out"; they share neither seeds nor textures.
            image_size: Side of the square scenes in pixels; object sizes are in pixels of the 1024 model frame at any
                size.
        """
        self.bank = texture_bank(split)
        self.image_size = image_size
        self.first_seed = 0 if split == "train" else 2**40

    def __call__(self, number: int, difficulty: float | None = None) -> Scene:
        """Paint a scene.

        Args:
            number: Which scene of the split.
            difficulty: 0 for one to three objects on a plain ground, 1 for full dead leaves; drawn from the seed if
                None.
        """
        rng = np.random.default_rng(self.first_seed + number)
        level = float(rng.uniform()) if difficulty is None else difficulty
        return ScenePainter(rng, self.bank, self.image_size, level).paint()


class ScenePainter:
    """The state of one scene while it is being painted."""

    def __init__(self, rng: np.random.Generator, bank: NDArray[np.uint8], size: int, difficulty: float) -> None:
        self.rng, self.bank, self.size, self.difficulty = rng, bank, size, difficulty
        self.canvas: Float = np.zeros((size, size, 3), np.float32)
        self.ids: Ids = np.zeros((3, size, size), np.uint8)
        self.next_id = np.zeros(3, np.int64)
        self.vivid = rng.uniform() < 0.3  # a scene is muted or saturated as a whole
        self.light = rng.uniform(0, 2 * np.pi)

    def paint(self) -> Scene:
        self._background()
        things = int(self.next_id.max())
        self.next_id[:] = things
        wanted = self._object_count()
        while wanted > 0 and self.next_id.max() < MOST_IDS - 20:
            wanted -= self._group() if self.rng.uniform() < 0.15 else self._lone_object()
        return Scene(self._photograph(), self.ids, things)

    def _object_count(self) -> int:
        drawn = float(self.rng.uniform(1, 3 + 14 * self.difficulty**1.5))
        return max(1, round(drawn * float((self.size / 224) ** 0.9)))

    def _background(self) -> None:
        size, rng = self.size, self.rng
        whole = np.full((size, size), 255, np.uint8)
        self._paint_region((0, 0), whole, self._material(size, size, 0.7 * self.difficulty), (0, 0, 0))
        self.next_id[:] = 1
        if rng.uniform() < 0.4 * self.difficulty + 0.1:  # a horizon, a wall and a floor
            angle = rng.uniform(0, 2 * np.pi) if rng.uniform() < 0.3 else rng.normal(np.pi / 2, 0.15)
            half = self._half_plane(size, size, angle, rng.uniform(-0.3, 0.3) * size, rng.uniform(0, 0.02) * size)
            self._paint_region((0, 0), half, self._material(size, size, 0.7 * self.difficulty), (1, 1, 1))
            self.next_id[:] = 2

    def _lone_object(self) -> int:
        radius = self._radius()
        self._object(
            random_silhouette(self.rng),
            self._place(radius),
            radius,
            self._palette(),
            int(self.rng.integers(len(self.bank))),
        )
        self.next_id[2] += 1
        return 1

    def _group(self) -> int:
        """Like objects side by side; one group id for all."""
        rng, count = self.rng, int(self.rng.integers(2, 5))
        silhouette, palette, texture = random_silhouette(rng), self._palette(), int(rng.integers(len(self.bank)))
        radius = min(self._radius(), 0.25 * self.size)
        centre, direction = np.array(self._place(radius)), rng.uniform(0, 2 * np.pi)
        for _ in range(count):
            self._object(
                silhouette,
                (float(centre[0]), float(centre[1])),
                radius * rng.uniform(0.8, 1.2),
                palette,
                texture,
                whole=True,
            )
            direction += rng.normal(0, 0.7)
            centre = centre + radius * rng.uniform(1.3, 2.0) * np.array([np.cos(direction), np.sin(direction)])
        self.next_id[2] += 1
        return count

    def _radius(self) -> float:
        low, high = 16.0, 0.4 * self.size if self.size < 512 else 0.3 * self.size
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def _place(self, radius: float) -> tuple[float, float]:
        margin = 0.3 * radius
        x, y = self.rng.uniform(margin, self.size - margin, 2)
        return float(x), float(y)

    def _object(
        self,
        silhouette: Silhouette,
        centre: tuple[float, float],
        radius: float,
        palette: NDArray[np.uint8],
        texture: int,
        whole: bool = False,
    ) -> None:
        """Paint one object, its shadow below it and its parts upon it; takes the next object id."""
        reach = int(radius * 1.7) + 3
        left, top = max(int(centre[0]) - reach, 0), max(int(centre[1]) - reach, 0)
        w, h = min(int(centre[0]) + reach, self.size) - left, min(int(centre[1]) + reach, self.size) - top
        if w < 8 or h < 8:
            return
        rng, local = self.rng, (centre[0] - left, centre[1] - top)
        parts: list[NDArray[np.uint8]] = []
        alpha = fill((h, w), silhouette, local, radius)
        if not whole and radius > 24 and rng.uniform() < 0.4:
            alpha, parts = self._parts(alpha, local, radius)
        if rng.uniform() < 0.6:
            self._shadow(left, top, alpha, radius)
        shown = covered(alpha)
        colour = self._material(h, w, self.difficulty, palette, texture, shown)
        parts = [part[shown] for part in parts]
        for part in parts:
            share = palette if rng.uniform() < 0.3 else self._palette()
            soft = (part.astype(np.float32) / 255)[..., None]
            colour *= 1 - soft
            colour += self._material(h, w, self.difficulty, share, shown=shown) * soft
        colour *= self._shading(alpha, local, radius, shown)[..., None]
        ids = (int(self.next_id[0]), int(self.next_id[1]), int(self.next_id[2]))
        alpha, left, top = alpha[shown], left + shown[1].start, top + shown[0].start
        self._paint_region((left, top), alpha, colour, ids)
        h, w = alpha.shape
        for k, part in enumerate(parts, start=1):
            self.ids[0, top : top + h, left : left + w][(alpha > 127) & (part > 127)] = ids[0] + k
        self.next_id[0] += 1 + len(parts)
        self.next_id[1] += 1

    def _parts(
        self, alpha: NDArray[np.uint8], centre: tuple[float, float], radius: float
    ) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
        """Divide a silhouette; a limb makes it grow. Returns the whole and its parts."""
        rng, (h, w), parts = self.rng, alpha.shape, []
        for _ in range(int(rng.integers(1, 3))):
            kind, angle = int(rng.integers(4)), rng.uniform(0, 2 * np.pi)
            away = (centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle))
            offset = (
                rng.uniform(-0.4, 0.4) * radius
                + (centre[0] - w / 2) * np.cos(angle)
                + (centre[1] - h / 2) * np.sin(angle)
            )
            if kind == 0:  # cut in two
                part = self._half_plane(h, w, angle, offset, 0)
            elif kind == 1:  # band
                band = rng.uniform(0.2, 0.5) * radius
                part = self._half_plane(h, w, angle, offset, 0) & ~self._half_plane(h, w, angle, offset + band, 0)
            elif kind == 2:  # spot
                spot = (centre[0] + (away[0] - centre[0]) * 0.35, centre[1] + (away[1] - centre[1]) * 0.35)
                part = fill((h, w), random_silhouette(rng), spot, radius * rng.uniform(0.2, 0.5))
            else:  # limb
                part = fill((h, w), random_silhouette(rng), away, radius * rng.uniform(0.3, 0.6))
                alpha = np.maximum(alpha, part)
            parts.append(part)
        return alpha, parts

    def _half_plane(self, h: int, w: int, angle: float, offset: float, wobble: float) -> NDArray[np.uint8]:
        y, x = np.ogrid[0:h, 0:w]
        side = (x - w / 2) * np.cos(angle) + (y - h / 2) * np.sin(angle) - offset
        if wobble:
            side = side + wobble * np.sin(x / 23.0) + wobble * np.sin(y / 31.0)
        return np.asarray(np.clip(side + 0.5, 0, 1) * 255, np.uint8)

    def _palette(self) -> NDArray[np.uint8]:
        """A (256, 3) colour ramp through two to four related colours."""
        rng, stops = self.rng, int(self.rng.integers(2, 5))
        contrast = rng.beta(1.2, 2.5) * (0.4 + 0.8 * self.difficulty)
        hue = (rng.uniform() + rng.normal(0, 0.03 + 0.1 * contrast, stops)) % 1.0
        saturation = rng.beta(5, 2) if self.vivid else rng.beta(1.5, 3.5)
        value = rng.uniform(0.12, 0.95) + rng.uniform(-1, 1, stops) * contrast * 0.6
        hsv = np.stack([hue * 179, np.full(stops, saturation * 255), np.clip(value, 0.03, 1) * 255], 1)
        rgb = cv2.cvtColor(hsv[None].astype(np.uint8), cv2.COLOR_HSV2RGB)[0].astype(np.float64)
        at = np.linspace(0, 255, stops)
        return np.stack([np.interp(np.arange(256), at, rgb[:, c]) for c in range(3)], 1).astype(np.uint8)

    def _material(
        self,
        h: int,
        w: int,
        roughness: float,
        palette: NDArray[np.uint8] | None = None,
        texture: int | None = None,
        shown: Window = ALL,
    ) -> Float:
        """The shown part of a (h, w, 3) surface: a random window of a pattern, coloured."""
        rng = self.rng
        pattern = self.bank[int(rng.integers(len(self.bank))) if texture is None else texture]
        if palette is None:
            palette = self._palette()
        if rng.uniform() < 0.35 * (1 - roughness):  # plain paint
            colour = palette[int(rng.integers(256))].astype(np.float32)
            return np.broadcast_to(colour, (h, w, 3))[shown].copy()
        angle, zoom = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(-0.7, 0.9))
        c, s = np.cos(angle) / zoom, np.sin(angle) / zoom
        shift = rng.uniform(0, PATTERN_SIZE, 2)
        matrix = np.array([[c, -s, shift[0]], [s, c, shift[1]]])
        window = cv2.warpAffine(
            pattern, matrix, (w, h), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
        )
        return np.asarray(palette.astype(np.float32)[window[shown]], np.float32)

    def _shading(
        self, alpha: NDArray[np.uint8], centre: tuple[float, float], radius: float, shown: Window = ALL
    ) -> Float:
        rng, (h, w) = self.rng, alpha.shape
        y, x = np.ogrid[0:h, 0:w]
        y, x = y[shown[0]], x[:, shown[1]]
        u, v = ((x - centre[0]) / radius).astype(np.float32), ((y - centre[1]) / radius).astype(np.float32)
        slope = rng.uniform(0, 0.35)
        shade = 1 - slope * np.float32(np.cos(self.light)) * u - slope * np.float32(np.sin(self.light)) * v
        if rng.uniform() < 0.4:  # round bodies darken toward the edge
            shade = shade * (1.1 - rng.uniform(0.1, 0.4) * np.minimum(u * u + v * v, 1.5))
        if rng.uniform() < 0.5:  # rim
            width = float(np.clip(radius * 0.08, 1, 6))
            inside = cv2.blur(alpha, (int(2 * width) + 1,) * 2)[shown].astype(np.float32) / 255
            shade = shade * (1 + rng.uniform(-0.7, 0.25) * (1 - inside))
        return np.clip(shade, 0.15, 1.8).astype(np.float32)

    def _shadow(self, left: int, top: int, alpha: NDArray[np.uint8], radius: float) -> None:
        h, w = alpha.shape
        reach = radius * self.rng.uniform(0.05, 0.2)
        dx, dy = reach * np.cos(self.light), reach * np.sin(self.light)
        moved = cv2.warpAffine(alpha, np.array([[1, 0, dx], [0, 1, dy]]), (w, h))
        side = 2 * int(reach) + 3
        soft = cv2.blur(moved, (side, side)).astype(np.float32) * np.float32(self.rng.uniform(0.2, 0.6) / 255)
        self.canvas[top : top + h, left : left + w] *= 1 - soft[..., None]

    def _paint_region(
        self, corner: tuple[int, int], alpha: NDArray[np.uint8], colour: Float, ids: tuple[int, int, int]
    ) -> None:
        (left, top), (h, w) = corner, alpha.shape
        window = self.canvas[top : top + h, left : left + w]
        window += (alpha.astype(np.float32) * np.float32(1 / 255))[..., None] * (colour - window)
        shown = alpha > 127
        for level in range(3):
            self.ids[level, top : top + h, left : left + w][shown] = ids[level]

    def _photograph(self) -> NDArray[np.uint8]:
        """Light, blur, noise and JPEG."""
        rng, size = self.rng, self.size
        corners = rng.uniform(0.75, 1.2, (2, 2)).astype(np.float32)
        image = self.canvas * cv2.resize(corners, (size, size))[..., None]
        image = np.asarray(cv2.GaussianBlur(image, (5, 5), rng.uniform(0.4, 1.1)), np.float32)
        sigma = rng.uniform(0.5, 9) if rng.uniform() < 0.7 else 0.5
        image += sigma * rng.standard_normal((size, size, 1), np.float32) + 0.5 * sigma * rng.standard_normal(
            (size, size, 3), np.float32
        )
        byte = np.clip(image, 0, 255).astype(np.uint8)
        if rng.uniform() < 0.5:
            _, code = cv2.imencode(".jpg", byte[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 96))])
            byte = np.ascontiguousarray(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])
        return byte
