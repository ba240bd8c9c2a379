import assert from "node:assert/strict";
import { test } from "node:test";
import { readManifest } from "../src/bundle.js";
import { asMobileSamError, MobileSamError } from "../src/errors.js";
import { wholeMask } from "../src/everything.js";
import { maskIou } from "../src/masks.js";
import { imageDataSource } from "../src/photo.js";
import { resizeLongestSide } from "../src/resize.js";

function manifest(change: (m: any) => void = () => undefined): unknown {
  const file = (role: string) => ({ path: `tflite/mobile_sam_${role}.tflite`, role, kind: "file", size_bytes: 9, sha256: "ab" });
  const entry = {
    precision: "float32",
    options: {},
    contract: { version: "1", image_size: 448, max_points: 8 },
    files: [file("encoder"), file("decoder")],
  };
  const made = {
    format: "mobilesam-export-bundle",
    contract_version: "1",
    weights: { sha256: "cd", notice: null },
    targets: { tflite: entry },
  };
  change(made);
  return made;
}

test("a manifest gives S, the slots and the files of an engine", () => {
  const bundle = readManifest(manifest(), "litert");
  assert.deepEqual(
    [bundle.imageSize, bundle.maxPoints, bundle.precision, bundle.encoder.path, bundle.decoder.sizeBytes],
    [448, 8, "float32", "tflite/mobile_sam_encoder.tflite", 9],
  );
});

test("one file for both roles is fetched once", () => {
  const bundle = readManifest(manifest((m) => (m.targets.tflite.files = [{ path: "a", role: "combined", size_bytes: 1, sha256: "" }])), "litert");
  assert.equal(bundle.encoder, bundle.decoder);
});

for (const [what, change, told] of [
  ["nothing", () => null, /^manifest.json is no bundle's manifest/],
  ["another format", (m: any) => (m.format = "zip"), /format "zip"/],
  ["another contract", (m: any) => (m.targets.tflite.contract.version = "7"), /contract version/],
  ["the official decoder", (m: any) => (m.targets.tflite.options.official_decoder = true), /another interface/],
  ["no files", (m: any) => (m.targets.tflite.files = []), /no encoder/],
  ["an absolute path", (m: any) => (m.targets.tflite.files[0].path = "/etc/passwd"), /path/],
  ["another host's path", (m: any) => (m.targets.tflite.files[0].path = "https://example.org/x"), /path/],
  ["a size that is none", (m: any) => (m.targets.tflite.files[0].size_bytes = -1), /size_bytes/],
  ["an image size that is none", (m: any) => (m.targets.tflite.contract.image_size = 1e9), /image_size/],
  ["slots that are none", (m: any) => (m.targets.tflite.contract.max_points = 0), /max_points/],
  ["a list", (m: any) => (m.targets = []), /no targets/],
] as const) {
  test(`a manifest with ${what} is refused`, () => {
    const made = what === "nothing" ? null : manifest(change as (m: any) => void);
    assert.throws(() => readManifest(made, "litert"), (error) => error instanceof MobileSamError && told.test(error.message));
  });
}

test("the other engine's files that are not there are named", () => {
  assert.throws(() => readManifest(manifest(), "onnxruntime"), { code: "model_file", message: /no onnx files; export them with --target onnx/ });
});

test("an unknown failure becomes one sentence, and a known one stays itself", () => {
  const known = new MobileSamError("image", "no");
  assert.equal(asMobileSamError(known, "engine", "told"), known);
  assert.equal(asMobileSamError(new Error("first\nsecond"), "engine", "told").message, "told (first)");
});

test("a large photo is read in strips, and no strip changes a pixel", () => {
  const [width, height] = [2000, 1200];
  const data = Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => (i * 2654435761) >>> 24);
  let largest = 0;
  const whole = imageDataSource({ width, height, data } as ImageData);
  const strips = { ...whole, rows: (first: number, count: number) => ((largest = Math.max(largest, count)), whole.rows(first, count)) };
  const resized = resizeLongestSide(strips, 128);
  assert.ok(largest < height, "more than one strip");
  const cut = resizeLongestSide({ width, height, channels: 4, rows: (first, count) => data.slice(first * width * 4, (first + count) * width * 4) }, 128);
  assert.deepEqual(resized.data, cut.data);
  assert.deepEqual([resized.width, resized.height], [128, 77]);
});

test("found masks lie at their boxes", () => {
  const found = { box: [1, 1, 2, 2] as const, area: 3, score: 1, stability: 1, point: [1, 1] as const, data: new Uint8Array([1, 0, 1, 1]) };
  assert.deepEqual([...wholeMask(found, { width: 4, height: 3 }).data], [0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0]);
});

test("the IoU of masks", () => {
  assert.equal(maskIou([1, 1, 0, 0], [0, 1, 1, 0]), 1 / 3);
  assert.equal(maskIou([0, 0], [0, 0]), 1);
});
