"""A mask as polygons, by the rule of the host code in ``apps/``; ``apps/conformance/README.md`` has it in words."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Ring = list[tuple[int, int]]

_EAST, _SOUTH, _WEST, _NORTH = range(4)
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # x, y


def polygons(mask: Mask) -> list[Ring]:
    """Closed rings of pixel corners x, y around the (H, W) mask, which lies on their right-hand side.

    Outer rings run clockwise, holes counter-clockwise (y points down). Mask pixels that touch at a corner only
    are apart. A ring has no vertex on a straight line and begins at its topmost, then leftmost corner; rings are in
    the order of these.
    """
    inside = np.pad(mask, 1)

    def is_edge(x: int, y: int, direction: int) -> bool:
        """Whether a crack leaves corner (x, y) that way: mask on its right, none on its left."""
        # The pixels around corner (x, y), in the padded mask: north-west, north-east, south-east, south-west.
        around = inside[y, x], inside[y, x + 1], inside[y + 1, x + 1], inside[y + 1, x]
        right, left = ((2, 1), (3, 2), (0, 3), (1, 0))[direction]
        return bool(around[right] and not around[left])

    # Where a ring can begin, in reading order: cracks that go east, with mask below, or south, with mask to the left.
    here, above, left = inside[1:, 1:], inside[:-1, 1:], inside[1:, :-1]
    starts = np.argwhere(np.stack([here & ~above, left & ~here], axis=-1))

    begun: set[tuple[int, int, int]] = set()
    rings = []
    for y, x, first in starts.tolist():  # _EAST is 0, _SOUTH 1
        if (x, y, first) in begun:
            continue
        ring: Ring = []
        at, direction, before = (x, y), first, -1
        while (*at, direction) not in begun:
            begun.add((*at, direction))
            if direction != before:
                ring.append(at)
            at = (at[0] + _STEPS[direction][0], at[1] + _STEPS[direction][1])
            before = direction
            # Right, straight on, left: the first crack there is.
            direction = next(d for t in (1, 0, 3) if is_edge(*at, d := (direction + t) % 4))
        rings.append(ring)
    return rings


def outer_rings(mask: Mask) -> list[Ring]:
    """The ``polygons`` of an (H, W) mask without those around its holes."""
    return [ring for ring in polygons(mask) if _turns_right(ring)]


def _turns_right(ring: Ring) -> bool:
    """Whether a ring runs clockwise, y pointing down, by the sign of its area."""
    following = [*ring[1:], ring[0]]
    return sum(x * v - u * y for (x, y), (u, v) in zip(ring, following, strict=True)) > 0
