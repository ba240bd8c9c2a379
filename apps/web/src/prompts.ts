import { Label, MASK_COUNT, type Size } from "./contract.js";
import { MobileSamError } from "./errors.js";
import { resizedSize } from "./resize.js";

/** A tap, in the upright photo's pixels; a pixel's centre is at .5. */
export interface Point {
  readonly x: number;
  readonly y: number;
  /** 1 on the object (default), 0 not on it. */
  readonly label?: 0 | 1;
}

/** x0, y0, x1, y1 in the photo's pixels. */
export type Box = readonly [number, number, number, number];

/** The decoder's point inputs. */
export interface Slots {
  /** x, y of each slot in model-frame pixels. */
  readonly coords: Float32Array;
  /** A `Label` for each slot. */
  readonly labels: Float32Array;
}

/** Whether the best of the three alternatives is wanted: one foreground point and nothing else. */
export function isAmbiguous(points: readonly Point[], box: Box | null, hasMask: boolean): boolean {
  return points.length === 1 && (points[0]!.label ?? 1) === 1 && box === null && !hasMask;
}

/** Which of the decoder's four masks to show; the first of equal ones. */
export function bestRow(multimask: boolean, iouPredictions: ArrayLike<number>): number {
  if (!multimask) return 0;
  let best = 1;
  for (let row = 2; row < MASK_COUNT; row++) if (iouPredictions[row]! > iouPredictions[best]!) best = row;
  return best;
}

/** Throw a MobileSamError for a prompt without meaning on this photo. */
export function checkPrompt(
  points: readonly Point[],
  box: Box | null,
  hasMask: boolean,
  photo: Size,
  maxPoints: number | null,
): void {
  if (points.length === 0 && box === null && !hasMask) {
    throw new MobileSamError("no_prompt", "got no prompt; give points, a box or a previous mask");
  }
  const corners = box === null ? [] : [{ x: box[0], y: box[1] }, { x: box[2], y: box[3] }];
  for (const { x, y } of [...points, ...corners]) {
    if (!(x >= 0 && x <= photo.width && y >= 0 && y <= photo.height)) { // NaN is not inside
      throw new MobileSamError(
        "point_outside",
        `(${x}, ${y}) is outside the photo of ${photo.width} x ${photo.height} pixels; give points inside it`,
      );
    }
  }
  for (const { label } of points) {
    if (label !== undefined && label !== 0 && label !== 1) {
      throw new MobileSamError("point_label", `got point label ${label}, expected 1 on the object or 0 not on it`);
    }
  }
  if (box !== null && !(box[0] < box[2] && box[1] < box[3])) {
    throw new MobileSamError("box_corners", `got box ${box.join(", ")}, expected x0 < x1 and y0 < y1; swap its corners`);
  }
  const slots = points.length + (box !== null ? 2 : points.length > 0 ? 1 : 0);
  if (maxPoints !== null && slots > maxPoints) {
    throw new MobileSamError(
      "too_many_points",
      `got a prompt of ${slots} slots (a box takes two, a prompt without box one more than its points), ` +
        `the decoder holds ${maxPoints}; give fewer points`,
    );
  }
}

/**
 * The decoder's point inputs for a checked prompt.
 *
 * Points without a box are followed by one padding point; a box is two points labelled as its corners; a mask alone
 * has absent slots only. `maxPoints` null, a decoder for any number of points, gives no more slots than needed.
 */
export function promptSlots(
  points: readonly Point[],
  box: Box | null,
  photo: Size,
  imageSize: number,
  maxPoints: number | null,
): Slots {
  const resized = resizedSize(photo, imageSize);
  const scaleX = resized.width / photo.width;
  const scaleY = resized.height / photo.height;
  const used: [number, number, number][] = points.map(({ x, y, label }) => [x * scaleX, y * scaleY, label ?? Label.foreground]);
  if (box !== null) {
    used.push([box[0] * scaleX, box[1] * scaleY, Label.boxTopLeft], [box[2] * scaleX, box[3] * scaleY, Label.boxBottomRight]);
  } else {
    used.push([0, 0, points.length > 0 ? Label.padding : Label.absent]);
  }
  const count = maxPoints ?? used.length;
  const coords = new Float32Array(2 * count);
  const labels = new Float32Array(count).fill(Label.absent);
  used.slice(0, count).forEach(([x, y, label], i) => {
    coords[2 * i] = x;
    coords[2 * i + 1] = y;
    labels[i] = label;
  });
  return { coords, labels };
}
