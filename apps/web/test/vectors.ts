/** Reads conformance vectors; the format is in apps/conformance/README.md. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { PixelSource } from "../src/resize.js";

export interface StoredArray {
  file: string;
  dtype: "uint8" | "float32";
  shape: number[];
}
export type HeightWidth = [number, number];
interface Named {
  name: string;
}
export interface PromptCase extends Named {
  photo_size: HeightWidth;
  max_points: number | null;
  points: [number, number, 0 | 1][];
  box: [number, number, number, number] | null;
  previous_mask: boolean;
}
export interface Vectors {
  format: string;
  format_version: string;
  contract_version: string;
  resize: (Named & { photo_size: HeightWidth; image_size: number; resized_size: HeightWidth; rows: number[] | null; pixels: StoredArray })[];
  orientation: (Named & { orientation: number; jpeg: string; upright_size: HeightWidth; jpeg_pixels: StoredArray })[];
  frames: (Named & { photo_size: HeightWidth; image_size: number; layout: "nchw" | "nhwc"; pixels: StoredArray })[];
  prompts: (PromptCase & { image_size: number; point_coords: [number, number][]; point_labels: number[]; has_mask_input: number; multimask: boolean })[];
  prompt_errors: (PromptCase & { error: string })[];
  choices: (Named & { multimask: boolean; iou_predictions: number[]; row: number })[];
  masks: (Named & { photo_size: HeightWidth; image_size: number; logits: StoredArray | null; rows: number[] | null; mask: StoredArray })[];
  regions: (Named & { mask: StoredArray; operation: "fill_holes" | "remove_islands"; area: number; result: StoredArray })[];
  polygons: (Named & { mask: StoredArray; rings: [number, number][][] })[];
}

export const DIRECTORY = process.env["MOBILESAM_VECTORS"] ?? join(import.meta.dirname, "../../conformance/vectors");

export function readVectors(): Vectors {
  const vectors: Vectors = JSON.parse(readFileSync(join(DIRECTORY, "vectors.json"), "utf-8"));
  if (vectors.format !== "mobilesam-vectors" || vectors.format_version !== "1") throw new Error(`format ${vectors.format_version}`);
  return vectors;
}

export function readArray(array: StoredArray): Uint8Array | Float32Array {
  const bytes = readFileSync(join(DIRECTORY, array.file));
  if (array.dtype === "uint8") return new Uint8Array(bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: bytes.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

/** The format's made-up photo as RGBA, alpha 255. */
export function madeUpPhoto([height, width]: HeightWidth): PixelSource {
  return {
    width,
    height,
    channels: 4,
    rows(first, count) {
      const data = new Uint8Array(width * count * 4);
      for (let y = first; y < first + count; y++) {
        for (let x = 0; x < width; x++) {
          const at = ((y - first) * width + x) * 4;
          for (let c = 0; c < 3; c++) data[at + c] = (3 * x * x + 5 * y * y + 7 * x * y + 85 * c + 31 * ((x >> 4) ^ (y >> 4))) % 256;
          data[at + 3] = 255;
        }
      }
      return data;
    },
  };
}

export function madeUpLogits(imageSize: number): Float32Array {
  const low = imageSize / 4;
  const tri = (t: number, p: number) => Math.abs((t % (2 * p)) - p);
  return Float32Array.from({ length: low * low }, (_, i) => {
    const x = i % low;
    const y = Math.floor(i / low);
    return (tri(3 * x + y, 40) + tri(5 * y - 2 * x + 1000, 56) - 48.3046875) / 32;
  });
}
