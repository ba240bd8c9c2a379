import { CONTRACT_VERSION, maskIou, MobileSamError, type Mask, type Point, type Segmenter } from "../src/index.js";

const RUNS = 20;
const MEMORY_TIMEOUT_MS = 5000;

interface StoredArray {
  readonly file: string;
  readonly dtype: string;
  readonly shape: readonly number[];
}
interface BundleVectors {
  readonly weights_sha256: string;
  readonly image_size: number;
  readonly photos: readonly {
    readonly name: string;
    readonly pixels: StoredArray;
    readonly cases: readonly {
      readonly name: string;
      readonly points: readonly (readonly [number, number, 0 | 1])[];
      readonly box: [number, number, number, number] | null;
      readonly previous_mask: StoredArray | null;
      readonly mask: StoredArray;
    }[];
  }[];
}

/** One receipt, as apps/README.md says. */
export type Receipt = Record<string, unknown>;

/** The vectors' masks on this device, and timed encodes and taps. `vectorsUrl` ends in a slash. */
export async function measure(
  segmenter: Segmenter,
  vectorsUrl: string,
  device: string,
  progress: (part: number, what: string) => void,
): Promise<Receipt> {
  const vectors = await readVectors(vectorsUrl, segmenter);
  const total = vectors.photos.reduce((sum, photo) => sum + 1 + photo.cases.length, 0) + 2 * RUNS;
  let done = 0;
  const step = (what: string) => progress(++done / total, what);
  let [cases, lowest, worst] = [0, 1, ""];
  for (const photo of vectors.photos) {
    await segmenter.setImage(await photoOf(vectorsUrl, photo.pixels));
    step(photo.name);
    for (const asked of photo.cases) {
      const points: Point[] = asked.points.map(([x, y, label]) => ({ x, y, label }));
      const previous = asked.previous_mask && (await maskOf(vectorsUrl, asked.previous_mask));
      const [mask] = await segmenter.predict(points, asked.box, previous);
      const iou = maskIou(mask.data, await bytesOf(vectorsUrl, asked.mask));
      cases++;
      if (iou < lowest || worst === "") [lowest, worst] = [iou, `${photo.name}, ${asked.name}`];
      step(`${photo.name}, ${asked.name}: IoU ${iou.toFixed(5)}`);
    }
  }
  const first = vectors.photos[0]!;
  const pixels = await photoOf(vectorsUrl, first.pixels);
  const middle = [{ x: pixels.width / 2, y: pixels.height / 2 }];
  const encodes: number[] = [];
  await segmenter.setImage(pixels);
  for (let i = 0; i < RUNS; i++) {
    const begun = performance.now();
    await segmenter.setImage(pixels);
    encodes.push(performance.now() - begun);
    step(`photo ${i + 1} of ${RUNS}`);
  }
  const taps: number[] = [];
  await segmenter.predict(middle);
  for (let i = 0; i < RUNS; i++) {
    const begun = performance.now();
    await segmenter.predict(middle);
    taps.push(performance.now() - begun);
    step(`tap ${i + 1} of ${RUNS}`);
  }
  const [engine = "", ...unit] = segmenter.description.split(", ");
  return {
    format: "mobilesam-receipt",
    format_version: "1",
    device: device.trim() || "not said",
    system: navigator.userAgent,
    desktop: !/Android|iPhone|iPad|Mobile/.test(navigator.userAgent),
    engine,
    compute_unit: unit.join(", "),
    image_size: segmenter.bundle.imageSize,
    precision: segmenter.bundle.precision,
    weights_sha256: segmenter.bundle.weightsSha256,
    contract_version: CONTRACT_VERSION,
    encode_ms: { p50: percentile(encodes, 0.5), p90: percentile(encodes, 0.9), runs: RUNS },
    predict_ms: { p50: percentile(taps, 0.5), p90: percentile(taps, 0.9), runs: RUNS },
    memory_mb: await memoryMb(),
    cases,
    lowest_mask_iou: Math.round(lowest * 1e5) / 1e5,
    worst_case: worst,
    measured_at: new Date().toISOString().replace(/\.\d+Z/, "Z"),
  };
}

async function readVectors(url: string, segmenter: Segmenter): Promise<BundleVectors> {
  const response = await fetch(`${url}vectors.json`);
  const bundle = response.ok ? ((await response.json()) as { bundle: BundleVectors | null }).bundle : null;
  if (!bundle || bundle.weights_sha256 !== segmenter.bundle.weightsSha256 || bundle.image_size !== segmenter.bundle.imageSize) {
    throw new MobileSamError(
      "model_file",
      "there are no vectors of this bundle at vectors/; write them with: mobilesam-export vectors BUNDLE/vectors --bundle BUNDLE",
    );
  }
  return bundle;
}

async function bytesOf(url: string, array: StoredArray): Promise<Uint8Array<ArrayBuffer>> {
  const response = await fetch(url + array.file);
  if (!response.ok) throw new MobileSamError("model_file", `${array.file} is missing; write the vectors again`);
  return new Uint8Array(await response.arrayBuffer());
}

async function photoOf(url: string, array: StoredArray): Promise<ImageData> {
  const [height, width] = array.shape as [number, number];
  const rgb = await bytesOf(url, array);
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    image.data[4 * i] = rgb[3 * i]!;
    image.data[4 * i + 1] = rgb[3 * i + 1]!;
    image.data[4 * i + 2] = rgb[3 * i + 2]!;
    image.data[4 * i + 3] = 255;
  }
  return image;
}

async function maskOf(url: string, array: StoredArray): Promise<Mask> {
  const bytes = await bytesOf(url, array);
  return { width: 0, height: 0, data: new Uint8Array(), logits: new Float32Array(bytes.buffer) };
}

function percentile(times: readonly number[], p: number): number {
  const sorted = [...times].sort((a, b) => a - b);
  return Math.round(sorted[Math.ceil(p * sorted.length) - 1]! * 10) / 10;
}

/** Of the page with its workers, where the browser tells. */
async function memoryMb(): Promise<number | null> {
  const { measureUserAgentSpecificMemory: ask } = performance as { measureUserAgentSpecificMemory?: () => Promise<{ bytes: number }> };
  if (ask === undefined || !globalThis.crossOriginIsolated) return null;
  const answer = await Promise.race([
    ask.call(performance),
    new Promise<null>((resolve) => setTimeout(() => resolve(null), MEMORY_TIMEOUT_MS)),
  ]);
  return answer && Math.round(answer.bytes / 1e6);
}
