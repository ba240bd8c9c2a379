// The same as in_node.mjs in a page, which Chromium ($CHROMIUM) opens; nothing comes from a network.

import { readFile, writeFile } from "node:fs/promises";
import { extname } from "node:path";
import { chromium } from "playwright-core";

const { model, dtype, out, photos } = JSON.parse(await readFile(process.argv[2], "utf8"));
const modules = new URL("node_modules/", import.meta.url);
const folders = {
  page: new URL(".", import.meta.url),
  transformers: new URL("@huggingface/transformers/dist/", modules),
  ort: new URL("onnxruntime-web/dist/", modules),
  model: new URL(`file://${model}/`),
};
const types = { ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"], headless: true });
try {
  const page = await browser.newPage();
  page.on("console", (message) => console.log(message.text()));
  await page.route("**/*", async (route) => {
    const [, folder, ...rest] = new URL(route.request().url()).pathname.split("/");
    const path = rest.join("/");
    if (folder === "") return route.fulfill({ body: "<!doctype html>", contentType: "text/html" });
    try {
      const file = folder === "photo" ? photos[Number(path)].file : new URL(path, folders[folder]);
      await route.fulfill({ body: await readFile(file), contentType: types[extname(path)] ?? "application/octet-stream" });
    } catch {
      await route.fulfill({ status: 404 });
    }
  });
  await page.exposeFunction("keep", (i, j, masks) => writeFile(`${out}/${i}-${j}.masks`, Buffer.from(masks, "latin1")));
  await page.goto("http://localhost/");
  const answers = await page.evaluate(async ({ dtype, photos }) => {
    const transformers = await import("/transformers/transformers.js");
    const { segment } = await import("/page/sam_model.mjs");
    const { env } = transformers;
    Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: "/", useBrowserCache: false });
    Object.assign(env.backends.onnx.wasm, { wasmPaths: "/ort/", numThreads: 1 });
    const text = (bytes) => new TextDecoder("latin1").decode(bytes); // of bytes 0 and 1
    const served = photos.map(({ prompts }, i) => ({ file: `/photo/${i}`, prompts }));
    return segment(transformers, "model", { dtype: dtype ?? "fp32" }, served, (i, j, masks) => window.keep(i, j, text(masks)));
  }, { dtype, photos });
  await writeFile(`${out}/answers.json`, JSON.stringify(answers));
} finally {
  await browser.close();
}
