import type { Size } from "./contract.js";
import { forEachLogitRow, type Mask } from "./masks.js";

/** How densely to ask, and what to keep; the defaults are SAM's. */
export interface EverythingOptions {
  /** Points a side of the square grid. 32 are a thousand predictions. */
  readonly pointsPerSide?: number;
  /** Keep masks with a predicted IoU above; 0 keeps all. */
  readonly predIouThresh?: number;
  /** Keep masks with a stability score of at least this; 0 keeps all. */
  readonly stabilityScoreThresh?: number;
  /** Logits up and down from the threshold at which the stability is judged. */
  readonly stabilityScoreOffset?: number;
  /** Of two masks whose boxes overlap by a larger IoU, the one with the lower predicted IoU goes. */
  readonly boxNmsThresh?: number;
}

/** One mask of everything mode, in the photo's pixels. */
export interface FoundMask {
  /** x0, y0, x1, y1 of its outermost pixels, both inclusive. */
  readonly box: readonly [number, number, number, number];
  readonly area: number;
  readonly score: number;
  readonly stability: number;
  /** The grid point that was asked. */
  readonly point: readonly [number, number];
  /** 1 in the mask, for the box's pixels only. */
  readonly data: Uint8Array;
}

/** One decoder call: the four masks' logits, one after the other, and their predicted IoU. */
export interface Decoded {
  readonly logits: Float32Array;
  readonly iouPredictions: Float32Array;
}

/** A found mask at the photo's size. */
export function wholeMask(found: FoundMask, photo: Size): Pick<Mask, "width" | "height" | "data"> {
  const [x0, y0, x1, y1] = found.box;
  const width = x1 - x0 + 1;
  const data = new Uint8Array(photo.width * photo.height);
  for (let y = y0; y <= y1; y++) {
    data.set(found.data.subarray((y - y0) * width, (y - y0 + 1) * width), y * photo.width + x0);
  }
  return { width: photo.width, height: photo.height, data };
}

/** Masks for a grid of points over a photo, filtered and without doubles, largest first. */
export async function segmentEverything(
  photo: Size,
  imageSize: number,
  options: EverythingOptions,
  decode: (x: number, y: number) => Promise<Decoded>,
  progress: (done: number, of: number) => void,
): Promise<FoundMask[]> {
  const perSide = Math.max(1, Math.floor(options.pointsPerSide ?? 32));
  const predIouThresh = options.predIouThresh ?? 0.88;
  const stabilityScoreThresh = options.stabilityScoreThresh ?? 0.95;
  const pixels = (imageSize / 4) ** 2;
  const found: FoundMask[] = [];
  for (let i = 0; i < perSide * perSide; i++) {
    const x = (((i % perSide) + 0.5) / perSide) * photo.width;
    const y = ((Math.floor(i / perSide) + 0.5) / perSide) * photo.height;
    const { logits, iouPredictions } = await decode(x, y);
    for (let row = 1; row < iouPredictions.length; row++) {
      const score = iouPredictions[row]!;
      if (predIouThresh > 0 && !(score > predIouThresh)) continue;
      const mask = judge(logits.subarray(row * pixels, (row + 1) * pixels), imageSize, photo, options.stabilityScoreOffset ?? 1);
      if (stabilityScoreThresh > 0 && mask.stability < stabilityScoreThresh) continue;
      found.push({ ...mask, score, point: [x, y] });
    }
    progress(i + 1, perSide * perSide);
  }
  return suppress(found, options.boxNmsThresh ?? 0.7).sort((a, b) => b.area - a.area);
}

/** The mask's own box, area and pixels, and how little it changes with its threshold. */
function judge(logits: Float32Array, imageSize: number, photo: Size, offset: number) {
  let smaller = 0;
  let larger = 0;
  let area = 0;
  let [x0, y0, x1, y1] = [photo.width, photo.height, -1, -1];
  const whole = new Uint8Array(photo.width * photo.height);
  forEachLogitRow(logits, imageSize, photo, (y, row) => {
    for (let x = 0; x < row.length; x++) {
      const logit = row[x]!;
      if (logit > -offset) larger++;
      if (logit > offset) smaller++;
      if (logit > 0) {
        whole[y * photo.width + x] = 1;
        area++;
        x0 = Math.min(x0, x);
        x1 = Math.max(x1, x);
        y0 = Math.min(y0, y);
        y1 = y;
      }
    }
  });
  if (area === 0) [x0, y0, x1, y1] = [0, 0, 0, 0];
  const width = x1 - x0 + 1;
  const data = new Uint8Array(width * (y1 - y0 + 1));
  for (let y = y0; y <= y1; y++) {
    data.set(whole.subarray(y * photo.width + x0, y * photo.width + x1 + 1), (y - y0) * width);
  }
  return { box: [x0, y0, x1, y1] as const, area, stability: larger > 0 ? smaller / larger : 0, data };
}

/** Non-maximum suppression by box, the best score first. */
function suppress(masks: FoundMask[], overlap: number): FoundMask[] {
  const kept: FoundMask[] = [];
  for (const mask of [...masks].sort((a, b) => b.score - a.score)) {
    if (kept.every((other) => boxIou(mask.box, other.box) <= overlap)) kept.push(mask);
  }
  return kept;
}

function boxIou(a: FoundMask["box"], b: FoundMask["box"]): number {
  const size = (box: FoundMask["box"]) => (box[2] - box[0]) * (box[3] - box[1]);
  const shared =
    Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const union = size(a) + size(b) - shared;
  return union > 0 ? shared / union : 0; // two boxes of no size are apart, as in torchvision's nms
}
