// Figures for the documentation: node test/figures.mjs URL [NOTE]; URL is a running `mobilesam-export web` over a bundle
// with vectors. Prints one row of a table for each engine and number of threads.
import { gzipSync } from "node:zlib";
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [url, note = ""] = process.argv.slice(2);
const RUNS = { encode: 5, tap: 20 };
const FLAGS = ["--no-sandbox", "--headless=new", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-gpu"];
const RUNTIME = { litert: ["litert_wasm_threaded_internal.wasm", "litert_wasm_threaded_internal.js"], onnxruntime: ["ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.mjs"] };

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS, headless: true });
for (const engine of ["litert", "onnxruntime"]) {
  for (const threads of [1, 2]) {
    const page = await browser.newPage();
    page.setDefaultTimeout(600_000);
    await page.goto(`${url}style.css`);
    const figures = await page.evaluate(async ({ engine, threads, RUNS }) => {
      const { Segmenter, maskIou, decodePhoto } = await import("/mobilesam.js");
      const stored = async (array) => {
        const bytes = await (await fetch(`/vectors/${array.file}`)).arrayBuffer();
        return array.dtype === "uint8" ? new Uint8Array(bytes) : new Float32Array(bytes);
      };
      const median = (times) => [...times].sort((a, b) => a - b)[Math.floor(times.length / 2)];
      const timed = async (runs, call) => {
        const times = [];
        for (let i = 0; i < runs; i++) {
          const begun = performance.now();
          await call();
          times.push(performance.now() - begun);
        }
        return median(times);
      };
      const begun = performance.now();
      const segmenter = await Segmenter.load({ engine, threads, bundleUrl: "/bundle/" });
      const load = performance.now() - begun;
      const photo = await decodePhoto(await (await fetch("/photos/coffee.png")).blob());
      await segmenter.setImage(photo);
      await segmenter.predict([{ x: 287, y: 151 }]);
      const first = performance.now() - begun;
      const encode = await timed(RUNS.encode, () => segmenter.setImage(photo));
      const tap = await timed(RUNS.tap, () => segmenter.predict([{ x: 287, y: 151 }]));
      const { bundle } = await (await fetch("/vectors/vectors.json")).json();
      let [lowest, worst] = [1, ""];
      for (const { name, cases } of threads === 1 ? bundle.photos : []) {
        await segmenter.setImage(await (await fetch(`/photos/${name}.png`)).blob());
        for (const asked of cases) {
          const previous = asked.previous_mask && { logits: await stored(asked.previous_mask) };
          const [mask] = await segmenter.predict(asked.points.map(([x, y, label]) => ({ x, y, label })), asked.box, previous);
          const iou = maskIou(mask.data, await stored(asked.mask));
          if (iou <= lowest) [lowest, worst] = [iou, `${name}, ${asked.name}`];
        }
      }
      const { encoder, decoder, imageSize, precision } = segmenter.bundle;
      return { load, first, encode, tap, lowest, worst, imageSize, precision, models: (encoder.sizeBytes + decoder.sizeBytes) / 1e6, description: segmenter.description };
    }, { engine, threads, RUNS });
    const runtime = RUNTIME[engine].reduce((sum, file) => sum + gzipSync(readFileSync(new URL(`../dist/engines/${engine}/${file}`, import.meta.url))).length, 0) / 1e6;
    const ms = (time) => time.toFixed(time < 100 ? 1 : 0);
    const iou = threads === 1 ? `${figures.lowest.toFixed(5)} (${figures.worst})` : "";
    console.log(`| ${figures.imageSize} | ${figures.description} | ${figures.precision} | ${runtime.toFixed(1)} + ${figures.models.toFixed(1)} | ${ms(figures.load)} | ${ms(figures.first)} | ${ms(figures.encode)} | ${ms(figures.tap)} | ${iou} | ${note}`);
    await page.close();
  }
}
await browser.close();
