import type { Mask } from "./masks.js";

/** Corners x, y of a closed ring, not repeating the first. */
export type Ring = [number, number][];

const EAST = 0;
const SOUTH = 1;
const STEPS = [[1, 0], [0, 1], [-1, 0], [0, -1]] as const;
/** For each direction the pixels to the right and left of the crack that leaves a corner, as offsets from it. */
const SIDES = [
  [[0, 0], [0, -1]],
  [[-1, 0], [0, 0]],
  [[-1, -1], [-1, 0]],
  [[0, -1], [-1, -1]],
] as const;

/**
 * The mask's outlines along the cracks between pixels, mask on the right-hand side: outer rings clockwise (y points
 * down), holes against. Pixels that touch at a corner only are apart. Fill them by either rule to get the mask back.
 */
export function polygons(mask: Pick<Mask, "width" | "height" | "data">): Ring[] {
  const { width, height, data } = mask;
  const inside = (x: number, y: number) => x >= 0 && y >= 0 && x < width && y < height && data[y * width + x] !== 0;
  const isEdge = (x: number, y: number, direction: number) => {
    const [right, left] = SIDES[direction]!;
    return inside(x + right[0], y + right[1]) && !inside(x + left[0], y + left[1]);
  };
  // One bit a direction for each corner whose crack has been walked.
  const walked = new Uint8Array((width + 1) * (height + 1));
  const rings: Ring[] = [];
  for (let startY = 0; startY <= height; startY++) {
    for (let startX = 0; startX <= width; startX++) {
      for (const first of [EAST, SOUTH]) {
        if (walked[startY * (width + 1) + startX]! & (1 << first) || !isEdge(startX, startY, first)) continue;
        const ring: Ring = [];
        let x = startX;
        let y = startY;
        let direction: number = first;
        let before = -1;
        while (!(walked[y * (width + 1) + x]! & (1 << direction))) {
          walked[y * (width + 1) + x]! |= 1 << direction;
          if (direction !== before) ring.push([x, y]);
          x += STEPS[direction]![0];
          y += STEPS[direction]![1];
          before = direction;
          // Right, straight on, left: the first crack there is.
          for (const turn of [1, 0, 3]) {
            direction = (before + turn) % 4;
            if (isEdge(x, y, direction)) break;
          }
        }
        rings.push(ring);
      }
    }
  }
  return rings;
}
