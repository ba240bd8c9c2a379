import assert from "node:assert/strict";
import { test } from "node:test";
import { CONTRACT_VERSION } from "../src/contract.js";
import { MobileSamError } from "../src/errors.js";
import { modelFrame } from "../src/frame.js";
import { logitsToMask, type Mask } from "../src/masks.js";
import { polygons } from "../src/polygons.js";
import { bestRow, checkPrompt, isAmbiguous, promptSlots } from "../src/prompts.js";
import { fillHoles, removeIslands } from "../src/regions.js";
import { resizeLongestSide } from "../src/resize.js";
import { madeUpLogits, madeUpPhoto, readArray, readVectors, type HeightWidth, type PromptCase } from "./vectors.js";

const vectors = readVectors();
const size = ([height, width]: HeightWidth) => ({ width, height });
const points = (asked: PromptCase) => asked.points.map(([x, y, label]) => ({ x, y, label }));
const bytes = (array: { file: string; dtype: "uint8" | "float32"; shape: number[] }) => readArray(array) as Uint8Array;
const mask = (stored: { file: string; dtype: "uint8" | "float32"; shape: number[] }): Mask => ({
  width: stored.shape[1]!,
  height: stored.shape[0]!,
  data: bytes(stored),
  logits: new Float32Array(),
});

/** Rows of a result that a case holds. */
function someRows(data: Uint8Array, rowBytes: number, rows: number[] | null): Uint8Array {
  if (rows === null) return data;
  const some = new Uint8Array(rows.length * rowBytes);
  rows.forEach((row, i) => some.set(data.subarray(row * rowBytes, (row + 1) * rowBytes), i * rowBytes));
  return some;
}

test("the vectors are of this contract", () => assert.equal(vectors.contract_version, CONTRACT_VERSION));

test("photos are resized to PIL's own pixels", () => {
  assert.ok(vectors.resize.length >= 20);
  for (const { name, photo_size, image_size, resized_size, rows, pixels } of vectors.resize) {
    const resized = resizeLongestSide(madeUpPhoto(photo_size), image_size);
    assert.deepEqual([resized.height, resized.width], resized_size, name);
    const got = someRows(resized.data, resized.width * 3, rows);
    const expected = bytes(pixels);
    assert.equal(got.length, expected.length, name);
    const largest = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - got[i]!)), 0);
    // Of photos this tall Pillow resizes the height first, which moves some pixels by one level.
    assert.ok(largest <= (photo_size[0] > 2 * photo_size[1] ? 1 : 0), `${name}: off by ${largest}`);
  }
});

test("model frames have the photo and the exact pad colour", () => {
  for (const { name, photo_size, image_size, layout, pixels } of vectors.frames) {
    const resized = resizeLongestSide(madeUpPhoto(photo_size), image_size);
    assert.deepEqual(modelFrame(resized, image_size, { layout, dtype: pixels.dtype }), readArray(pixels), name);
  }
});

test("prompts become slots", () => {
  assert.ok(vectors.prompts.length >= 90);
  for (const asked of vectors.prompts) {
    const photo = size(asked.photo_size);
    checkPrompt(points(asked), asked.box, asked.previous_mask, photo, asked.max_points);
    const { coords, labels } = promptSlots(points(asked), asked.box, photo, asked.image_size, asked.max_points);
    assert.deepEqual([...labels], asked.point_labels, asked.name);
    const expected = asked.point_coords.flat();
    assert.equal(coords.length, expected.length, asked.name);
    expected.forEach((value, i) => assert.ok(Math.abs(coords[i]! - value) <= 0.001, `${asked.name}: ${coords[i]} for ${value}`));
    assert.equal(isAmbiguous(points(asked), asked.box, asked.previous_mask), asked.multimask, asked.name);
  }
});

test("prompts without meaning are refused by their codes", () => {
  assert.ok(vectors.prompt_errors.length >= 10);
  for (const asked of vectors.prompt_errors) {
    assert.throws(
      () => checkPrompt(points(asked), asked.box, asked.previous_mask, size(asked.photo_size), asked.max_points),
      (error) => error instanceof MobileSamError && error.code === asked.error,
      asked.name,
    );
  }
  const nan = { x: Number.NaN, y: 1 };
  assert.throws(() => checkPrompt([nan], null, false, { width: 9, height: 9 }, 8), { code: "point_outside" });
});

test("the best of three is chosen", () => {
  for (const { name, multimask, iou_predictions, row } of vectors.choices) assert.equal(bestRow(multimask, iou_predictions), row, name);
});

test("logits become the reference's masks, but for pixels at the threshold", () => {
  assert.ok(vectors.masks.length >= 15);
  for (const { name, photo_size, image_size, logits, rows, mask } of vectors.masks) {
    const values = logits === null ? madeUpLogits(image_size) : (readArray(logits) as Float32Array);
    const made = logitsToMask(values, image_size, size(photo_size));
    const got = someRows(made.data, made.width, rows);
    const expected = bytes(mask);
    assert.equal(got.length, expected.length, name);
    const wrong = expected.findIndex((value, i) => value !== 2 && value !== got[i]);
    assert.equal(wrong, -1, `${name}: pixel ${wrong}`);
  }
});

test("holes are filled and islands dropped", () => {
  assert.ok(vectors.regions.length >= 70);
  for (const { name, mask: stored, operation, area, result } of vectors.regions) {
    const apply = { fill_holes: fillHoles, remove_islands: removeIslands }[operation];
    assert.deepEqual(apply(mask(stored), area).data, bytes(result), name);
  }
});

test("masks become polygons", () => {
  assert.ok(vectors.polygons.length >= 10);
  for (const { name, mask: stored, rings } of vectors.polygons) assert.deepEqual(polygons(mask(stored)), rings, name);
});
