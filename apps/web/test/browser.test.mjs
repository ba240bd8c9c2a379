// The page in a headless Chromium. MOBILESAM_URL is a running `mobilesam-export web` over a bundle with vectors;
// MOBILESAM_SHOTS a folder for screenshots; CHROMIUM the browser, by default the system's.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { deflateSync, crc32 } from "node:zlib";
import { chromium } from "playwright-core";

const URL_BASE = process.env.MOBILESAM_URL;
const SHOTS = process.env.MOBILESAM_SHOTS;
const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const FLAGS = [
  "--no-sandbox", "--headless=new", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
// A GPU in software: right, and slow.
const SOFTWARE_GPU = [
  "--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-angle=swiftshader", "--use-webgpu-adapter=swiftshader",
  "--ignore-gpu-blocklist",
];
const POLICY = readFileSync(new URL("../README.md", import.meta.url), "utf-8").match(/`(default-src [^`]*)`/)[1];
const WAIT_MS = 120_000;
const LEAST_IOU = 0.999;

let browser;
const outside = []; // requests to other hosts

async function open({ path = "", viewport = { width: 1280, height: 860 }, script, context = {}, on = browser } = {}) {
  const page = await (await on.newContext({ viewport, acceptDownloads: true, ...context })).newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.on("request", (request) => {
    if (!/^(blob|data):/.test(request.url()) && !request.url().startsWith(URL_BASE)) outside.push(request.url());
  });
  page.on("pageerror", (error) => assert.fail(`the page threw: ${error}`));
  if (script) await page.addInitScript(script);
  await page.goto(URL_BASE + path);
  return page;
}

/** Run in a blank page of the same origin, without the demo's own model. */
async function blank(options) {
  const page = await open({ path: "style.css", ...options });
  await page.evaluate(() => {
    window.stored = async (array) => {
      const bytes = await (await fetch(`/vectors/${array.file}`)).arrayBuffer();
      return array.dtype === "uint8" ? new Uint8Array(bytes) : new Float32Array(bytes);
    };
    window.photo = async (array) => {
      const rgb = await stored(array);
      const [height, width] = array.shape;
      const image = new ImageData(width, height);
      for (let i = 0; i < width * height; i++) image.data.set([rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2], 255], 4 * i);
      return image;
    };
    window.told = (promise) => promise.then(() => "nothing", (error) => `${error.code}: ${error.message}`);
  });
  return page;
}

const ready = (page, text) => page.waitForFunction((text) => document.querySelector("#status").textContent.includes(text), text);

async function choose(page, name) {
  await page.click(`#photos button[data-name="${name}"]`);
  await page.waitForFunction(() => !document.querySelector("#everything").disabled);
}

/** Click at a place of the photo, in the photo's pixels. */
async function tap(page, [x, y], [width, height], options) {
  const box = await page.locator("#overlay").boundingBox();
  await page.mouse.click(box.x + (x / width) * box.width, box.y + (y / height) * box.height, options);
}

/** A saved PNG against a mask of the vectors. */
async function savedMaskIou(page, photo, name) {
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save-mask")]);
  const png = readFileSync(await download.path()).toString("base64");
  return page.evaluate(async ([png, photo, name]) => {
    const { bundle } = await (await fetch("/vectors/vectors.json")).json();
    const array = bundle.photos.find((p) => p.name === photo).cases.find((c) => c.name === name).mask;
    const expected = new Uint8Array(await (await fetch(`/vectors/${array.file}`)).arrayBuffer());
    const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
    const { maskIou } = await import("/mobilesam.js");
    return maskIou(Uint8Array.from(expected, (_, i) => (data[4 * i] > 127 ? 1 : 0)), expected);
  }, [png, photo, name]);
}

async function axe(page, where) {
  await page.addScriptTag({ path: AXE });
  const { violations } = await page.evaluate(() => axe.run());
  const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`), [], where);
}

const shot = (page, name) => SHOTS && page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });

/** A real PNG of any size, a few kB: one bit a pixel, all black. */
function hugePng(width, height) {
  const chunk = (kind, data) => {
    const body = Buffer.concat([Buffer.from(kind, "latin1"), data]);
    const ends = Buffer.alloc(8);
    ends.writeUInt32BE(data.length, 0);
    ends.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([ends.subarray(0, 4), body, ends.subarray(4)]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head[8] = 1;
  const rows = deflateSync(Buffer.alloc((Math.ceil(width / 8) + 1) * height));
  return Buffer.concat([Buffer.from("89504e470d0a1a0a", "hex"), chunk("IHDR", head), chunk("IDAT", rows), chunk("IEND", Buffer.alloc(0))]);
}

const launch = (flags) =>
  chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: [...FLAGS, ...flags], headless: true });

before(async () => {
  assert.ok(URL_BASE, "set MOBILESAM_URL to a running mobilesam-export web");
  browser = await launch(["--disable-gpu"]);
});
after(() => browser?.close());

for (const engine of ["litert", "onnxruntime"]) {
  describe(engine, () => {
    test("masks of every prompt on every photo agree with PyTorch", async () => {
      const page = await blank();
      const answers = await page.evaluate(async (engine) => {
        const { Segmenter, maskIou } = await import("/mobilesam.js");
        const { bundle } = await (await fetch("/vectors/vectors.json")).json();
        const segmenter = await Segmenter.load({ engine, bundleUrl: "/bundle/" });
        const answers = [];
        for (const { name, pixels, cases } of bundle.photos) {
          await segmenter.setImage(await photo(pixels));
          for (const asked of cases) {
            const previous = asked.previous_mask && { logits: await stored(asked.previous_mask) };
            const points = asked.points.map(([x, y, label]) => ({ x, y, label }));
            const [mask, score] = await segmenter.predict(points, asked.box, previous);
            answers.push({ name: `${name}, ${asked.name}`, iou: maskIou(mask.data, await stored(asked.mask)), off: Math.abs(score - asked.score) });
          }
        }
        const { description } = segmenter;
        segmenter.close();
        return { answers, description, isolated: crossOriginIsolated };
      }, engine);
      assert.equal(answers.answers.length, 24);
      assert.equal(answers.isolated, true);
      const worst = answers.answers.reduce((a, b) => (b.iou < a.iou ? b : a));
      console.log(`${answers.description}: lowest mask IoU ${worst.iou.toFixed(5)} (${worst.name})`);
      for (const { name, iou, off } of answers.answers) {
        assert.ok(iou >= LEAST_IOU, `${name}: IoU ${iou}`);
        assert.ok(off < 0.01, `${name}: score off by ${off}`);
      }
      await page.context().close();
    });

    test("taps, a shift-tap, a dragged box and undo on the page give the masks of PyTorch", async () => {
      const page = await open({ path: `?engine=${engine}` });
      const coffee = [600, 400];
      await choose(page, "coffee");
      await tap(page, [287, 151], coffee);
      await ready(page, "predicted IoU");
      assert.ok((await savedMaskIou(page, "coffee", "point")) >= 0.99, "a tap lands within a screen pixel of the point");
      await page.keyboard.press("Tab");
      await page.click("#clear");
      for (const at of [[126, 262], [439, 212]]) {
        await tap(page, at, coffee);
        await ready(page, "predicted IoU");
      }
      await page.keyboard.down("Shift");
      await tap(page, [287, 151], coffee);
      await page.keyboard.up("Shift");
      await page.waitForTimeout(100);
      await ready(page, "predicted IoU");
      await page.waitForFunction(() => !document.querySelector("#save-mask").disabled);
      await page.waitForTimeout(1500);
      assert.ok((await savedMaskIou(page, "coffee", "points")) >= 0.98, "three points");
      await page.click("#undo");
      await page.click("#undo");
      await page.click("#undo");
      assert.equal(await page.isDisabled("#save-mask"), true);
      const shown = await page.locator("#overlay").boundingBox();
      const place = ([x, y]) => [shown.x + (x / 600) * shown.width, shown.y + (y / 400) * shown.height];
      await page.mouse.move(...place([171, 15]));
      await page.mouse.down();
      await page.mouse.move(...place([300, 200]), { steps: 3 });
      await page.mouse.move(...place([424, 313]), { steps: 3 });
      await page.mouse.up();
      await ready(page, "predicted IoU");
      assert.ok((await savedMaskIou(page, "coffee", "box")) >= 0.99, "a dragged box");
      await page.context().close();
    });
  });
}

describe("the page", () => {
  test("is accessible, fits 360 pixels, works by keyboard and touch, and asks no other host", async () => {
    const page = await open();
    await shot(page, "1-empty");
    await axe(page, "empty");
    await choose(page, "coffee");
    await page.mouse.move(640, 320);
    await page.waitForTimeout(600);
    await shot(page, "2-hover");
    await tap(page, [287, 151], [600, 400]);
    await ready(page, "predicted IoU");
    await shot(page, "3-mask");
    await axe(page, "mask");
    await page.click("#clear");
    await page.click("#everything");
    await ready(page, "objects");
    await shot(page, "4-everything");
    await axe(page, "everything");
    await page.click("#measure-open");
    await axe(page, "measure");
    await page.click("#measure-close");

    if (await page.isEnabled("#clear")) await page.click("#clear");
    await page.focus("#surface");
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("Enter");
    await ready(page, "predicted IoU");
    const one = await page.textContent("#status");
    for (const key of ["b", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown", "b"]) await page.keyboard.press(key);
    await page.waitForFunction((one) => /predicted IoU/.test(document.querySelector("#status").textContent) && document.querySelector("#status").textContent !== one, one);
    await page.keyboard.press("u");
    await page.keyboard.press("u");
    assert.equal(await page.isDisabled("#undo"), true);
    await page.context().close();

    const phone = await open({ viewport: { width: 360, height: 740 }, context: { hasTouch: true, isMobile: true, colorScheme: "dark", deviceScaleFactor: 2 } });
    await phone.tap('#photos button[data-name="rocket_portrait"]');
    await phone.waitForFunction(() => !document.querySelector("#everything").disabled);
    await phone.locator("#overlay").scrollIntoViewIfNeeded();
    const box = await phone.locator("#overlay").boundingBox();
    await phone.touchscreen.tap(box.x + (172 / 291) * box.width, box.y + (230 / 387) * box.height);
    await ready(phone, "predicted IoU");
    assert.ok((await phone.evaluate(() => document.documentElement.scrollWidth)) <= 360, "no sideways scrolling");
    await shot(phone, "5-phone-dark");
    await axe(phone, "phone, dark");
    await phone.context().close();
    assert.deepEqual(outside, []);
  });

  test("writes a cut-out with alpha", async () => {
    const page = await open();
    await choose(page, "coffee");
    await tap(page, [287, 151], [600, 400]);
    await ready(page, "predicted IoU");
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save-cutout")]);
    assert.equal(download.suggestedFilename(), "coffee-cutout.png");
    const png = readFileSync(await download.path()).toString("base64");
    const pixels = await page.evaluate(async (png) => {
      const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
      const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
      context.drawImage(bitmap, 0, 0);
      const at = (x, y) => [...context.getImageData(x, y, 1, 1).data];
      const photo = await createImageBitmap(await (await fetch("/photos/coffee.png")).blob());
      const whole = new OffscreenCanvas(photo.width, photo.height).getContext("2d");
      whole.drawImage(photo, 0, 0);
      return { size: [bitmap.width, bitmap.height], inside: at(287, 151), outside: at(5, 5), photo: [...whole.getImageData(287, 151, 1, 1).data] };
    }, png);
    assert.deepEqual(pixels.size, [600, 400]);
    assert.deepEqual(pixels.inside, pixels.photo);
    assert.equal(pixels.outside[3], 0);
    await page.context().close();
  });

  test("measures the device and writes a receipt", async () => {
    const page = await open();
    await page.waitForFunction(() => document.querySelector("#model-state").textContent.includes("LiteRT"));
    await page.click("#measure-open");
    await page.fill("#device", "headless Chromium");
    await page.click("#measure-start");
    await page.waitForFunction(() => !document.querySelector("#measure-start").disabled);
    assert.equal(await page.textContent("#measure-state"), "Done.");
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#receipt-save")]);
    const receipt = JSON.parse(readFileSync(await download.path(), "utf-8"));
    assert.equal(receipt.format, "mobilesam-receipt");
    assert.equal(receipt.cases, 24);
    assert.ok(receipt.lowest_mask_iou >= LEAST_IOU, `IoU ${receipt.lowest_mask_iou}`);
    assert.ok(receipt.encode_ms.p50 > 0 && receipt.encode_ms.p90 >= receipt.encode_ms.p50 && receipt.encode_ms.runs === 20);
    assert.equal(receipt.desktop, true);
    await shot(page, "6-measure");
    if (SHOTS) writeFileSync(join(SHOTS, "receipt.json"), JSON.stringify(receipt));
    await page.context().close();
  });

  test("works under the content security policy of the README", async () => {
    for (const engine of ["litert", "onnxruntime"]) {
      const page = await browser.newPage();
      const refused = [];
      page.on("console", (message) => /Content Security Policy/.test(message.text()) && refused.push(message.text()));
      await page.route("**/*", async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, headers: { ...response.headers(), "content-security-policy": POLICY } });
      });
      await page.goto(`${URL_BASE}?engine=${engine}`);
      await choose(page, "coffee");
      await tap(page, [287, 151], [600, 400]);
      await ready(page, "predicted IoU");
      assert.deepEqual(refused, []);
      await page.close();
    }
  });

  test("says in one sentence what is wrong with a photo, and goes on", async () => {
    const page = await open();
    await choose(page, "coffee");
    for (const [name, bytes, told] of [
      ["broken.jpg", Buffer.from("no photo at all"), "cannot decode"],
      ["huge.png", hugePng(12000, 9000), "expected 1 to 64 million"],
    ]) {
      await page.setInputFiles("#file", { name, mimeType: "image/png", buffer: bytes });
      await page.waitForFunction((told) => document.querySelector("#error").textContent.includes(told), told);
    }
    await tap(page, [287, 151], [600, 400]);
    await ready(page, "predicted IoU");
    assert.equal(await page.isHidden("#error"), true);
    await page.context().close();
  });
});

describe("the package", () => {
  test("answers calls in the wrong order, two taps at once and cancellation by the codes of the host API", async () => {
    const page = await blank();
    const told = await page.evaluate(async () => {
      const { Segmenter, maskIou } = await import("/mobilesam.js");
      const segmenter = await Segmenter.load({ bundleUrl: "/bundle/" });
      const results = {};
      results.noImage = await told(segmenter.predict([{ x: 1, y: 1 }]));
      const coffee = await (await fetch("/photos/coffee.png")).blob();
      await segmenter.setImage(coffee);
      results.noPrompt = await told(segmenter.predict());
      results.outside = await told(segmenter.predict([{ x: 601, y: 1 }]));
      results.many = await told(segmenter.predict(Array.from({ length: 8 }, () => ({ x: 1, y: 1 }))));
      results.maskSize = await told(segmenter.predict([], null, { logits: new Float32Array(9) }));
      const [[a], [b]] = await Promise.all([segmenter.predict([{ x: 287, y: 151 }]), segmenter.predict([], [171, 15, 424, 313])]);
      const [again] = await segmenter.predict([{ x: 287, y: 151 }]);
      results.twoTaps = [maskIou(a.data, again.data), maskIou(a.data, b.data)];
      // Cancelled during the encode: the earlier photo stays, the next calls start another worker.
      const stop = new AbortController();
      const encode = segmenter.setImage(await (await fetch("/photos/astronaut.png")).blob(), { signal: stop.signal });
      setTimeout(() => stop.abort(), 5); // well before an encode at 128 pixels can end
      results.cancelled = await told(encode);
      results.photo = segmenter.photo;
      const [after] = await segmenter.predict([{ x: 287, y: 151 }]);
      results.after = maskIou(after.data, a.data);
      const early = new AbortController();
      early.abort();
      results.early = await told(segmenter.predict([{ x: 1, y: 1 }], null, null, { signal: early.signal }));
      segmenter.reset();
      results.reset = await told(segmenter.predict([{ x: 1, y: 1 }]));
      await segmenter.setImage(coffee);
      const waiting = told(segmenter.everything({ pointsPerSide: 8 }));
      await new Promise((resolve) => setTimeout(resolve, 50));
      segmenter.close();
      results.closedWhileWaiting = await waiting;
      results.closed = await told(segmenter.predict([{ x: 1, y: 1 }]));
      return results;
    });
    const code = (name) => told[name].split(":")[0];
    assert.equal(code("noImage"), "no_image");
    assert.equal(code("noPrompt"), "no_prompt");
    assert.match(told.outside, /^point_outside: \(601, 1\) is outside the photo of 600 x 400 pixels/);
    assert.ok(["too_many_points", "nothing"].includes(code("many"))); // nothing: a decoder for any number
    assert.equal(code("maskSize"), "mask_size");
    assert.equal(told.twoTaps[0], 1);
    assert.ok(told.twoTaps[1] < 1);
    assert.equal(code("cancelled"), "cancelled");
    assert.deepEqual(told.photo, { width: 600, height: 400 });
    assert.equal(told.after, 1);
    assert.equal(code("early"), "cancelled");
    assert.equal(code("reset"), "no_image");
    assert.equal(code("closedWhileWaiting"), "closed");
    assert.equal(code("closed"), "closed");
    await page.context().close();
  });

  test("finds in everything mode what PyTorch finds", async () => {
    const page = await blank();
    const { expected, got } = await page.evaluate(async () => {
      const { Segmenter } = await import("/mobilesam.js");
      const { options, masks } = await (await fetch("/vectors/everything.json")).json();
      const segmenter = await Segmenter.load({ bundleUrl: "/bundle/" });
      await segmenter.setImage(await (await fetch("/photos/coffee.png")).blob());
      const steps = [];
      const found = await segmenter.everything(options, { onProgress: (done, of) => steps.push([done, of]) });
      const plain = found.map(({ box, area, score, stability, point, data }) => ({ box, area, score, stability, point, pixels: data.reduce((a, b) => a + b, 0) }));
      return { expected: masks, got: { masks: plain, last: steps.at(-1) } };
    });
    assert.deepEqual(got.last, [25, 25]);
    assert.equal(got.masks.length, expected.length);
    got.masks.forEach((mask, i) => {
      const other = expected[i];
      assert.deepEqual(mask.point, other.point, `mask ${i}`);
      assert.equal(mask.pixels, mask.area);
      mask.box.forEach((side, k) => assert.ok(Math.abs(side - other.box[k]) <= 1, `mask ${i}: box ${mask.box} for ${other.box}`));
      assert.ok(Math.abs(mask.area - other.area) <= 0.001 * other.area, `mask ${i}: area ${mask.area} for ${other.area}`);
      assert.ok(Math.abs(mask.score - other.score) < 0.01 && Math.abs(mask.stability - other.stability) < 0.01);
    });
    await page.context().close();
  });

  test("turns photos upright by each EXIF orientation", async () => {
    const page = await blank();
    const cases = await page.evaluate(async () => {
      const { decodePhoto } = await import("/mobilesam.js");
      const { orientation } = await (await fetch("/vectors/vectors.json")).json();
      return Promise.all(orientation.map(async (asked) => {
        const bitmap = await decodePhoto(await (await fetch(`/vectors/${asked.jpeg}`)).blob());
        const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
        context.drawImage(bitmap, 0, 0);
        const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
        const expected = await stored(asked.jpeg_pixels);
        const off = Math.max(...expected.map((value, i) => Math.abs(value - data[4 * Math.floor(i / 3) + (i % 3)])));
        return { name: asked.name, size: [bitmap.height, bitmap.width], expected: asked.jpeg_pixels.shape.slice(0, 2), off };
      }));
    });
    assert.equal(cases.length, 8);
    for (const { name, size, expected, off } of cases) {
      assert.deepEqual(size, expected, name);
      assert.ok(off <= 8, `${name}: off by ${off} levels`);
    }
    await page.context().close();
  });

  for (const [what, alter, told] of [
    ["a truncated model file", async (route) => {
      const body = await (await route.fetch()).body();
      await route.fulfill({ body: body.subarray(0, body.length / 2) });
    }, /^model_file: tflite\/mobile_sam_decoder\.tflite has \d+ bytes instead of \d+/],
    ["a changed model file", async (route) => {
      const body = await (await route.fetch()).body();
      body[body.length - 1000] ^= 1;
      await route.fulfill({ body });
    }, /^model_file: .* has been changed/],
    ["a model file that is missing", (route) => route.fulfill({ status: 404 }), /^model_file: .* is missing \(HTTP 404\)/],
    ["a model file whose transfer fails", (route) => route.abort(), /^model_file: .* cannot be fetched/],
  ]) {
    test(`refuses ${what}`, async () => {
      const page = await blank();
      await page.route("**/mobile_sam_decoder.tflite", alter);
      assert.match(await page.evaluate(async () => told((await import("/mobilesam.js")).Segmenter.load({ bundleUrl: "/bundle/" }))), told);
      await page.context().close();
    });
  }

  for (const [what, change, told] of [
    ["another contract version", (m) => (m.contract_version = "2"), /^contract_version: the models follow contract version 2, this code 1/],
    ["a path out of the bundle", (m) => (m.targets.tflite.files[0].path = "../secret"), /^model_file: .*path/],
    ["a file of a petabyte", (m) => (m.targets.tflite.files[0].size_bytes = 1e15), /^model_file: .*size_bytes/],
    ["no such target", (m) => delete m.targets.tflite, /^model_file: the bundle has no tflite files/],
    ["another image size than the model's", (m) => (m.targets.tflite.contract.image_size = 256), /^model_file: the encoder takes/],
  ]) {
    test(`refuses a manifest with ${what}`, async () => {
      const page = await blank();
      await page.route("**/manifest.json", async (route) => {
        const manifest = await (await route.fetch()).json();
        change(manifest);
        await route.fulfill({ json: manifest });
      });
      assert.match(await page.evaluate(async () => told((await import("/mobilesam.js")).Segmenter.load({ bundleUrl: "/bundle/" }))), told);
      await page.context().close();
    });
  }

  for (const [what, script, told] of [
    ["WebAssembly", () => delete globalThis.WebAssembly, /^engine: this browser has no WebAssembly/],
    ["Worker", () => delete globalThis.Worker, /^engine: this browser has no workers/],
  ]) {
    test(`says that there is no ${what}`, async () => {
      const page = await blank({ script });
      assert.match(await page.evaluate(async () => told((await import("/mobilesam.js")).Segmenter.load({ bundleUrl: "/bundle/" }))), told);
      await page.context().close();
    });
  }

  test("says that the worker's script or the engine's files are missing", async () => {
    const page = await blank();
    const results = await page.evaluate(async () => {
      const { Segmenter } = await import("/mobilesam.js");
      return [
        await told(Segmenter.load({ bundleUrl: "/bundle/", workerUrl: "/nothing.js" })),
        await told(Segmenter.load({ bundleUrl: "/bundle/", engineUrl: "/nothing/" })),
      ];
    });
    for (const result of results) assert.match(result, /^engine: /);
    await page.context().close();
  });

  test("survives a tab that closes during an encode", async () => {
    const page = await open();
    await page.waitForFunction(() => document.querySelector("#model-state").textContent.includes("LiteRT"));
    await page.click('#photos button[data-name="coffee"]');
    await page.waitForFunction(() => !document.querySelector("#busy").hidden);
    await page.context().close();
    const next = await open();
    await choose(next, "coffee");
    await next.context().close();
  });

  test("does not grow over 300 taps", async () => {
    const page = await blank();
    const bytes = await page.evaluate(async () => {
      const { Segmenter } = await import("/mobilesam.js");
      const segmenter = await Segmenter.load({ bundleUrl: "/bundle/", threads: 1 });
      await segmenter.setImage(await (await fetch("/photos/coffee.png")).blob());
      const after = [];
      for (const taps of [50, 300]) {
        for (let i = 0; i < taps; i++) await segmenter.predict([{ x: 10 + i, y: 10 + i }]);
        after.push((await performance.measureUserAgentSpecificMemory()).bytes);
      }
      return after;
    });
    console.log(`page and worker after 50 taps ${(bytes[0] / 1e6).toFixed(1)} MB, after 350 ${(bytes[1] / 1e6).toFixed(1)} MB`);
    // One leaked mask a tap would be 70 MB, one embedding 20 MB.
    assert.ok(bytes[1] - bytes[0] < 10e6, `grew by ${(bytes[1] - bytes[0]) / 1e6} MB`);
    await page.context().close();
  });

  test("runs the encoder on a GPU, and goes on when the GPU is lost", async () => {
    const gpu = await launch(SOFTWARE_GPU);
    try {
      const page = await blank({ on: gpu });
      await page.route("**/mobilesam-worker.js", async (route) => {
        const keep = "const ask = GPUAdapter.prototype.requestDevice;" +
          "GPUAdapter.prototype.requestDevice = async function (...all) { return (self.device = await ask.apply(this, all)); };";
        const response = await route.fetch();
        await route.fulfill({ response, body: keep + (await response.text()) });
      });
      const tap = () => page.evaluate(async () => {
        await segmenter.setImage(await (await fetch("/photos/coffee.png")).blob());
        return [...(await segmenter.predict([{ x: 287, y: 151 }]))[0].data].reduce((hash, bit) => (hash * 31 + bit) % 1000003, 7);
      });
      const load = (webgpu) => page.evaluate(async (webgpu) => {
        const { Segmenter } = await import("/mobilesam.js");
        window.segmenter?.close();
        window.segmenter = await Segmenter.load({ bundleUrl: "/bundle/", webgpu });
        return segmenter.description;
      }, webgpu);
      assert.match(await load(false), /wasm, \d threads?$/);
      const expected = await tap();
      assert.match(await load(true), /WebGPU encoder, wasm decoder/);
      assert.equal(await tap(), expected);
      const lost = page.evaluate(async () => told(segmenter.setImage(await (await fetch("/photos/astronaut.png")).blob())));
      // The page ends the worker as soon as it says that the GPU is lost, so this may not come back.
      for (const each of page.workers()) await each.evaluate(() => self.device?.destroy()).catch(() => undefined);
      assert.match(await lost, /^engine: .*GPU was lost/);
      assert.equal(await tap(), expected, "the next photo starts it again");
    } finally {
      await gpu.close();
    }
  });

  test("takes the CPU where there is no GPU", async () => {
    const page = await blank();
    const description = await page.evaluate(async () => {
      const { Segmenter } = await import("/mobilesam.js");
      return (await Segmenter.load({ bundleUrl: "/bundle/", webgpu: true })).description;
    });
    assert.match(description, /LiteRT\.js .*, wasm, \d threads?$/);
    await page.context().close();
  });

  test("runs without isolation, on one thread", async () => {
    const page = await blank();
    await page.route("**/style.css", async (route) => {
      const response = await route.fetch();
      const headers = { ...response.headers() };
      delete headers["cross-origin-opener-policy"];
      delete headers["cross-origin-embedder-policy"];
      await route.fulfill({ response, headers });
    });
    await page.reload();
    const result = await page.evaluate(async () => {
      const { Segmenter } = await import("/mobilesam.js");
      const segmenter = await Segmenter.load({ bundleUrl: "/bundle/" });
      await segmenter.setImage(await (await fetch("/photos/coffee.png")).blob());
      const [mask] = await segmenter.predict([{ x: 287, y: 151 }]);
      return { isolated: crossOriginIsolated, description: segmenter.description, width: mask.width };
    });
    assert.deepEqual([result.isolated, result.width], [false, 600]);
    assert.match(result.description, /wasm, 1 thread$/);
    await page.context().close();
  });
});
