import type { Size } from "./contract.js";

/** A photo that is read some rows at a time, so that a large one is never held twice. */
export interface PixelSource extends Size {
  /** 3 for RGB, 4 for RGBA (alpha is dropped). */
  readonly channels: 3 | 4;
  /** `count` rows from row `first` on, row by row. */
  rows(first: number, count: number): Uint8Array | Uint8ClampedArray;
}

/** RGB, 8 bits a channel, row by row. */
export interface RgbImage extends Size {
  readonly data: Uint8Array;
}

const STRIP_PIXELS = 1 << 20;
/** Weights are integers of this many fractional bits, as in PIL, so that the result is PIL's to the bit. */
const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/** The size that a photo takes in a model frame of side `imageSize`. */
export function resizedSize(photo: Size, imageSize: number): Size {
  const scale = imageSize / Math.max(photo.width, photo.height);
  const side = (pixels: number) => Math.max(1, Math.floor(pixels * scale + 0.5));
  return { width: side(photo.width), height: side(photo.height) };
}

/** Resize so that the longest side is `imageSize`: antialiased bilinear, as PIL does it. */
export function resizeLongestSide(photo: PixelSource, imageSize: number): RgbImage {
  const { width, height } = resizedSize(photo, imageSize);
  // Horizontal first and rounded to 8 bits, then vertical.
  const across = new Uint8Array(width * photo.height * 3);
  const columns = width === photo.width ? null : taps(photo.width, width);
  const stripHeight = Math.max(1, Math.floor(STRIP_PIXELS / photo.width));
  for (let top = 0; top < photo.height; top += stripHeight) {
    const count = Math.min(stripHeight, photo.height - top);
    const strip = photo.rows(top, count);
    for (let row = 0; row < count; row++) {
      resizeRow(strip, row * photo.width * photo.channels, photo.channels, columns, across, (top + row) * width * 3, width);
    }
  }
  if (height === photo.height) return { width, height, data: across };
  return { width, height, data: resizeDown(across, width * 3, taps(photo.height, height), height) };
}

/** For each of `count` output pixels: where its input pixels begin, how many there are, and their weights. */
interface Taps {
  readonly first: Int32Array;
  readonly counts: Int32Array;
  readonly weights: Int32Array;
  /** Weights of output pixel i begin at i * most. */
  readonly most: number;
}

function taps(from: number, to: number): Taps {
  const scale = from / to;
  const support = Math.max(scale, 1);
  const most = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(to);
  const counts = new Int32Array(to);
  const weights = new Int32Array(to * most);
  const exact = new Float64Array(most);
  for (let i = 0; i < to; i++) {
    const centre = (i + 0.5) * scale;
    const low = Math.max(0, Math.trunc(centre - support + 0.5));
    const high = Math.min(from, Math.trunc(centre + support + 0.5));
    let sum = 0;
    for (let j = low; j < high; j++) {
      const weight = Math.max(0, 1 - Math.abs((j - centre + 0.5) * (1 / support)));
      exact[j - low] = weight;
      sum += weight;
    }
    first[i] = low;
    counts[i] = high - low;
    for (let j = 0; j < high - low; j++) {
      weights[i * most + j] = Math.trunc((exact[j]! / sum) * 2 ** PRECISION_BITS + 0.5);
    }
  }
  return { first, counts, weights, most };
}

function clamp(sum: number): number {
  const value = sum >> PRECISION_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

function resizeRow(
  from: Uint8Array | Uint8ClampedArray,
  fromOffset: number,
  channels: number,
  columns: Taps | null,
  to: Uint8Array,
  toOffset: number,
  width: number,
): void {
  for (let x = 0; x < width; x++) {
    let r = HALF;
    let g = HALF;
    let b = HALF;
    let at = fromOffset + (columns === null ? x : columns.first[x]!) * channels;
    if (columns === null) {
      r = from[at]! << PRECISION_BITS;
      g = from[at + 1]! << PRECISION_BITS;
      b = from[at + 2]! << PRECISION_BITS;
    } else {
      const end = x * columns.most + columns.counts[x]!;
      for (let k = x * columns.most; k < end; k++, at += channels) {
        const weight = columns.weights[k]!;
        r += from[at]! * weight;
        g += from[at + 1]! * weight;
        b += from[at + 2]! * weight;
      }
    }
    to[toOffset + 3 * x] = clamp(r);
    to[toOffset + 3 * x + 1] = clamp(g);
    to[toOffset + 3 * x + 2] = clamp(b);
  }
}

function resizeDown(from: Uint8Array, rowBytes: number, rows: Taps, height: number): Uint8Array {
  const to = new Uint8Array(rowBytes * height);
  const sums = new Int32Array(rowBytes);
  for (let y = 0; y < height; y++) {
    sums.fill(HALF);
    for (let k = 0; k < rows.counts[y]!; k++) {
      const weight = rows.weights[y * rows.most + k]!;
      const offset = (rows.first[y]! + k) * rowBytes;
      for (let i = 0; i < rowBytes; i++) sums[i]! += from[offset + i]! * weight;
    }
    for (let i = 0; i < rowBytes; i++) to[y * rowBytes + i] = clamp(sums[i]!);
  }
  return to;
}
