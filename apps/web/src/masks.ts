import { MASK_THRESHOLD, type Size } from "./contract.js";
import { resizedSize } from "./resize.js";

/** A mask at the photo's size. */
export interface Mask extends Size {
  /** 1 in the mask, 0 outside, row by row. */
  readonly data: Uint8Array;
  /** S/4 x S/4 logits, which `predict` takes as `previousMask`. */
  readonly logits: Float32Array;
}

/** Logits at the photo's size, row by row: to S x S, cropped to the resized photo, to the photo. */
export function forEachLogitRow(
  logits: Float32Array,
  imageSize: number,
  photo: Size,
  each: (y: number, row: Float32Array) => void,
): void {
  const low = imageSize / 4;
  const resized = resizedSize(photo, imageSize);
  const full = new Float32Array(resized.width * resized.height);
  resample(logits, { width: low, height: low }, { width: imageSize, height: imageSize }, resized, (y, row) => {
    full.set(row, y * resized.width);
  });
  resample(full, resized, photo, photo, each);
}

/** The mask at the photo's size; the threshold is last. */
export function logitsToMask(logits: Float32Array, imageSize: number, photo: Size): Mask {
  const data = new Uint8Array(photo.width * photo.height);
  forEachLogitRow(logits, imageSize, photo, (y, row) => {
    const offset = y * photo.width;
    for (let x = 0; x < row.length; x++) if (row[x]! > MASK_THRESHOLD) data[offset + x] = 1;
  });
  return { width: photo.width, height: photo.height, data, logits };
}

interface Neighbours {
  readonly low: Int32Array;
  readonly high: Int32Array;
  readonly weight: Float64Array;
}

/** For `count` of the `to` output pixels: both input pixels and the weight of the higher one; half-pixel centres. */
function neighbours(from: number, to: number, count: number): Neighbours {
  const low = new Int32Array(count);
  const high = new Int32Array(count);
  const weight = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const source = Math.max(0, ((i + 0.5) * from) / to - 0.5);
    low[i] = Math.min(Math.floor(source), from - 1);
    high[i] = Math.min(low[i]! + 1, from - 1);
    weight[i] = source - low[i]!;
  }
  return { low, high, weight };
}

/** Bilinear without antialias from `from` to `to`, of which the top-left `crop` is made, one row at a time. */
function resample(
  values: Float32Array,
  from: Size,
  to: Size,
  crop: Size,
  each: (y: number, row: Float32Array) => void,
): void {
  const across = neighbours(from.width, to.width, crop.width);
  const down = neighbours(from.height, to.height, crop.height);
  const row = new Float32Array(crop.width);
  for (let y = 0; y < crop.height; y++) {
    const top = down.low[y]! * from.width;
    const bottom = down.high[y]! * from.width;
    const v = down.weight[y]!;
    for (let x = 0; x < crop.width; x++) {
      const l = across.low[x]!;
      const r = across.high[x]!;
      const u = across.weight[x]!;
      const above = values[top + l]! * (1 - u) + values[top + r]! * u;
      const below = values[bottom + l]! * (1 - u) + values[bottom + r]! * u;
      row[x] = above * (1 - v) + below * v;
    }
    each(y, row);
  }
}

/** Intersection over union of two masks of one size; 1 if both are empty. */
export function maskIou(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let intersection = 0;
  let union = 0;
  for (let i = 0; i < a.length; i++) {
    if (a[i]! !== 0 || b[i]! !== 0) {
      union++;
      if (a[i]! !== 0 && b[i]! !== 0) intersection++;
    }
  }
  return union === 0 ? 1 : intersection / union;
}
