"""The photos and prompts that every export is checked on: three shapes of photo, every kind of prompt."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilesam_export.photos import PHOTO_DIR
from reference.images import read_image
from reference.transforms import resize_longest_side

Point = tuple[float, float]
Box = tuple[float, float, float, float]


class PromptKind(StrEnum):
    """What a prompt is made of; each takes another path through the prompt encoder."""

    POINT = "point"
    POINTS = "points"
    BOX = "box"
    BOX_AND_POINTS = "box and points"
    MASK_REFINEMENT = "mask refinement"
    MASK_ONLY = "mask only"


@dataclass(frozen=True)
class Case:
    """One prompt on one photo.

    Attributes:
        points: x, y in the photo's pixels.
        labels: 1 foreground, 0 background, one for each point.
        box: XYXY in the photo's pixels.
        mask_from: kind of the case whose single-mask logits, *as the reference answers*, are this case's
            ``mask_input``; so that both sides start from the same mask.
    """

    photo: str
    kind: PromptKind
    points: tuple[Point, ...] = ()
    labels: tuple[int, ...] = ()
    box: Box | None = None
    mask_from: PromptKind | None = None

    @property
    def slots(self) -> int:
        """How many point slots of the decoder it takes: points, a box's two corners or else the padding point."""
        return len(self.points) + (2 if self.box else 1 if self.points else 0)


@dataclass(frozen=True)
class Photo:
    """A photo of the package, or a user's own, and what to ask about it.

    Attributes:
        point: on an object that is ambiguous, as a first tap is.
        points, labels: an object by two foreground points and a background one.
        box: around an object.
        boxed_points: one foreground and one background point inside or beside ``second_box``.
        directory: where the file lies.
        longest_side: a larger photo is reduced to it; prompts are in the pixels of the reduced one.
    """

    file: str
    point: Point
    points: tuple[Point, ...]
    labels: tuple[int, ...]
    box: Box
    second_box: Box
    boxed_points: tuple[Point, Point]
    directory: Path = PHOTO_DIR
    longest_side: int | None = None

    @property
    def name(self) -> str:
        """The file's name; without its ending for the package's photos, which differ without it."""
        return Path(self.file).stem if self.directory == PHOTO_DIR else self.file

    def read(self) -> NDArray[np.uint8]:
        """The (H, W, 3) photo."""
        pixels = read_image(self.directory / self.file)
        if self.longest_side is not None and max(pixels.shape) > self.longest_side:
            return resize_longest_side(pixels, self.longest_side)
        return pixels

    def cases(self) -> tuple[Case, ...]:
        """One case for each kind of prompt; those that give a mask come before those that take it."""
        name, kind = self.name, PromptKind
        return (
            Case(name, kind.POINT, (self.point,), (1,)),
            Case(name, kind.POINTS, self.points, self.labels),
            Case(name, kind.BOX, box=self.box),
            Case(name, kind.BOX_AND_POINTS, self.boxed_points, (1, 0), self.second_box),
            Case(name, kind.MASK_REFINEMENT, self.points, self.labels, mask_from=kind.POINT),
            Case(name, kind.MASK_ONLY, mask_from=kind.BOX),
        )


PHOTOS = (
    Photo(  # square, 512 x 512: no padding
        "astronaut.png",
        point=(225, 110),  # the face
        points=((170, 300), (300, 300), (400, 450)),  # the suit without the helmet
        labels=(1, 1, 0),
        box=(355, 0, 475, 283),  # the shuttle
        second_box=(275, 340, 511, 511),  # the helmet, at the frame's edge
        boxed_points=((440, 460), (330, 330)),
    ),
    Photo(  # landscape, 600 x 400: padding at the bottom
        "coffee.png",
        point=(287, 151),  # the espresso
        points=((126, 262), (439, 212), (287, 151)),  # the saucer
        labels=(1, 1, 0),
        box=(171, 15, 424, 313),  # the cup
        second_box=(75, 60, 479, 389),  # the saucer
        boxed_points=((126, 262), (287, 151)),
    ),
    Photo(  # landscape with odd sizes, 451 x 300: enlarged, and rounded in both directions
        "chelsea.png",
        point=(264, 244),  # the nose
        points=((174, 118), (318, 136), (434, 86)),  # the eyes, or the head
        labels=(1, 1, 0),
        box=(131, 84, 210, 148),  # an eye
        second_box=(20, 0, 368, 287),  # the head
        boxed_points=((150, 180), (420, 200)),
    ),
    Photo(  # portrait, 291 x 387: padding at the right
        "rocket_portrait.png",
        point=(172, 230),  # the rocket
        points=((172, 150), (172, 330), (80, 150)),
        labels=(1, 1, 0),
        box=(156, 84, 188, 370),
        second_box=(15, 80, 62, 375),  # the tower
        boxed_points=((42, 200), (172, 230)),
    ),
)

QUICK_PHOTO = PHOTOS[2]  # with padding, enlarged by no whole number, and in most tables the worst case
