// A receipt of this machine, as the page's "measure" saves it: node test/receipt.mjs URL ENGINE DEVICE OUT.json; URL is a
// running `mobilesam-export web` over a bundle with vectors, ENGINE litert or onnxruntime.
import { chromium } from "playwright-core";

const [url, engine, device, out] = process.argv.slice(2);
if (!out) throw new Error("usage: node test/receipt.mjs URL ENGINE DEVICE OUT.json");
const FLAGS = ["--no-sandbox", "--headless=new", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-gpu"];

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS, headless: true });
const page = await browser.newPage({ acceptDownloads: true });
page.setDefaultTimeout(900_000);
await page.goto(`${url}?engine=${engine}`);
await page.waitForFunction((name) => document.querySelector("#model-state").textContent.includes(name), engine === "litert" ? "LiteRT" : "ONNX");
await page.click("#measure-open");
await page.fill("#device", device);
await page.click("#measure-start");
await page.waitForFunction(() => !document.querySelector("#measure-start").disabled);
const state = await page.textContent("#measure-state");
if (state !== "Done.") throw new Error(state);
const [download] = await Promise.all([page.waitForEvent("download"), page.click("#receipt-save")]);
await download.saveAs(out);
await browser.close();
