"""What the conformance vectors ask: made-up photos and logits, sizes, prompts and shapes, the same for every bundle."""

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
SIZES: dict[str, Size] = {  # (H, W)
    "portrait": (120, 90),
    "landscape": (200, 300),
    "square": (200, 200),
    "square of 128": (128, 128),
    "small square": (40, 40),
    "odd sides": (301, 451),
    "side that rounds half up": (101, 256),
    "1 x 1": (1, 1),
    "5 x 3": (3, 5),
    "4000 x 12": (12, 4000),
    "12 x 4000": (4000, 12),
    "photo of a phone, portrait": (2016, 1512),
}
Points = list[tuple[float, float, int]]
Box = tuple[float, float, float, float]
# Name, points, box, previous mask; on a photo of 600 x 400.
PROMPTS: tuple[tuple[str, Points, Box | None, bool], ...] = (
    ("point", [(287, 151, 1)], None, False),
    ("background point", [(10.5, 390.25, 0)], None, False),
    ("points", [(126, 262, 1), (439, 212, 1), (287, 151, 0)], None, False),
    ("points at the corners", [(0, 0, 1), (600, 400, 0)], None, False),
    ("box", [], (171, 15, 424, 313), False),
    ("box of the whole photo", [], (0, 0, 600, 400), False),
    ("box and points", [(126, 262, 1), (287, 151, 0)], (75, 60, 479, 389), False),
    ("refinement by a point", [(287, 151, 1)], None, True),
    ("refinement by a box", [], (171, 15, 424, 313), True),
    ("refinement by box and point", [(126, 262, 0)], (75, 60, 479, 389), True),
    ("mask alone", [], None, True),
    ("seven points", [(50.0 * i + 0.5, 300 - 40.25 * i, i % 2) for i in range(7)], None, False),
    ("six points and a box", [(50.0 * i + 0.5, 300 - 40.25 * i, 1) for i in range(6)], (1, 2, 3, 4), False),
)
PHOTO_SIZE: Size = (400, 600)


def made_up_photo(size: Size) -> NDArray[np.uint8]:
    """The (H, W, 3) photo of the format's formula."""
    y, x, c = np.ogrid[: size[0], : size[1], :3]
    pattern = 3 * x * x + 5 * y * y + 7 * x * y + 85 * c + 31 * ((x >> 4) ^ (y >> 4))
    pixels: NDArray[np.uint8] = (pattern % 256).astype(np.uint8)
    return pixels


def made_up_logits(image_size: int) -> NDArray[np.float32]:
    """The (S/4, S/4) logits of the format's formula."""

    def triangle(t: NDArray[np.int64], period: int) -> NDArray[np.int64]:
        return np.abs(t % (2 * period) - period)

    y, x = np.ogrid[: image_size // 4, : image_size // 4]
    waves = triangle(3 * x + y, 40) + triangle(5 * y - 2 * x + 1000, 56)
    return ((waves - 48.3046875) / 32).astype(np.float32)


def shapes() -> dict[str, NDArray[np.bool_]]:
    """Small masks that decide every question of neighbourhood and order."""

    def drawn(*rows: str) -> NDArray[np.bool_]:
        return np.array([[cell == "#" for cell in row] for row in rows])

    waves = made_up_logits(256) > 0
    photo = made_up_photo((48, 64))[..., 0] > 128
    return {
        "empty": np.zeros((4, 5), bool),
        "full": np.ones((4, 5), bool),
        "one pixel": drawn("....", ".#..", "...."),
        "diagonal pixels": drawn("#...", ".#..", "..#.", "...#"),
        "rising diagonal": drawn("..#", ".#.", "#.."),
        "ring with a pixel inside": drawn("#####", "#...#", "#.#.#", "#...#", "#####"),
        "holes that touch at a corner": drawn("#####", "#.###", "##.##", "#####"),
        "hole open at a corner": drawn("####", "#.##", "###.", "####"),
        "hole at the edge": drawn("##.##", "#####", "#####"),
        "equal islands": drawn("##..##", "##..##", "......", "###...", "#....."),
        "islands of one to six pixels": drawn("#.##.###.####.#####.######"),
        "waves": waves,
        "noise": photo,
    }
