import {
  cutout,
  decodePhoto,
  fillHoles,
  maskToImageData,
  MobileSamError,
  removeIslands,
  Segmenter,
  wholeMask,
  type Box,
  type EngineName,
  type FoundMask,
  type Mask,
  type Point,
} from "../src/index.js";
import { measure, type Receipt } from "./measure.js";
import { Stage } from "./stage.js";

const PHOTOS = ["coffee", "astronaut", "chelsea", "rocket_portrait"];
/** Fewer points than SAM's 32 a side, and masks that are less sure than its defaults: an overview, soon. */
const OVERVIEW = { pointsPerSide: 16, predIouThresh: 0.6, stabilityScoreThresh: 0.85 };
/** Holes and islands below this part of the photo are small. */
const SMALL = 0.001;
const DRAG_PX = 6;
const KEY_STEP = 0.02;

const $ = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const stageElement = $("stage");
const surface = $("surface");
const stage = new Stage($<HTMLCanvasElement>("photo"), $<HTMLCanvasElement>("overlay"));

interface Prompt {
  readonly points: readonly Point[];
  readonly box: Box | null;
}
const NOTHING: Prompt = { points: [], box: null };

let segmenter: Segmenter | null = null;
let loading: AbortController | null = null;
let photo: ImageBitmap | null = null;
let photoName = "photo";
let encoded = false;
let history: Prompt[] = [];
let mask: Mask | null = null;
let preview: Mask | null = null;
let hover: Point | null = null;
let found: FoundMask[] = [];
let cross: { x: number; y: number } | null = null;
let corner: { x: number; y: number } | null = null;
let drag: { from: { x: number; y: number }; startX: number; startY: number; box: Box | null; shift: boolean } | null = null;
let stop: AbortController | null = null;

const prompt = () => history.at(-1) ?? NOTHING;
const ms = (time: number) => (time >= 1000 ? `${(time / 1000).toFixed(2)} s` : `${time.toFixed(time < 10 ? 1 : 0)} ms`);

function say(text: string): void {
  $("status").textContent = text;
}

function fail(thrown: unknown): void {
  if (thrown instanceof MobileSamError && thrown.code === "cancelled") return;
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  $("error").textContent = text[0]!.toUpperCase() + text.slice(1) + ".";
  $("error").hidden = false;
}

function busy(text: string | null, cancel: AbortController | null = null): void {
  $("busy").hidden = text === null;
  $("busy-text").textContent = text ?? "";
  $("cancel").hidden = cancel === null;
  stop = cancel;
}

function render(): void {
  const { points, box } = prompt();
  const shownBox = drag?.box ?? (corner && cross ? boxBetween(corner, cross) : null) ?? box;
  const chosen = mask ?? preview;
  stage.draw({ mask: chosen, preview: mask === null, found: chosen ? [] : found, points, box: shownBox, cross });
  for (const id of ["undo", "clear"]) $<HTMLButtonElement>(id).disabled = history.length === 0 && found.length === 0;
  for (const id of ["save-mask", "save-cutout"]) $<HTMLButtonElement>(id).disabled = mask === null;
  $<HTMLButtonElement>("everything").disabled = !encoded;
}

function boxBetween(a: { x: number; y: number }, b: { x: number; y: number }): Box | null {
  const box: Box = [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];
  return box[0] < box[2] && box[1] < box[3] ? box : null;
}

// The model

async function loadModel(): Promise<void> {
  loading?.abort();
  segmenter?.close();
  segmenter = null;
  encoded = false;
  const mine = (loading = new AbortController());
  const engine = $<HTMLSelectElement>("engine").value as EngineName;
  const webgpu = $<HTMLInputElement>("webgpu").checked && engine === "litert";
  $("webgpu-row").hidden = engine !== "litert" || !("gpu" in navigator);
  $("error").hidden = true;
  $<HTMLProgressElement>("progress").hidden = false;
  $("model-state").textContent = "Loading";
  const begun = performance.now();
  try {
    const opened = await Segmenter.load({
      engine,
      webgpu,
      signal: mine.signal,
      onProgress: (bytes, total) => {
        $<HTMLProgressElement>("progress").value = bytes / total;
        $("model-state").textContent = bytes < total ? `${(bytes / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB` : "Starting";
      },
    });
    if (mine.signal.aborted) return opened.close();
    segmenter = opened;
    $("model-state").textContent = `${opened.description}. ${opened.bundle.precision}, S = ${opened.bundle.imageSize}.`;
    $("t-load").textContent = ms(performance.now() - begun);
    $("notice").hidden = opened.bundle.notice === null;
    $("notice").textContent = `Weights: ${opened.bundle.notice}.`;
  } catch (thrown) {
    if (mine.signal.aborted) return;
    $("model-state").textContent = "Not loaded";
    fail(thrown);
    return;
  } finally {
    if (!mine.signal.aborted) $<HTMLProgressElement>("progress").hidden = true;
  }
  await encode();
}

// The photo

async function openPhoto(file: Blob, name: string): Promise<void> {
  $("error").hidden = true;
  let opened: ImageBitmap;
  try {
    opened = await decodePhoto(file);
  } catch (thrown) {
    return fail(thrown);
  }
  photo?.close();
  photo = opened;
  photoName = name.replace(/\.[^.]*$/, "") || "photo";
  stageElement.removeAttribute("data-empty");
  stage.show(photo);
  cross = null;
  for (const button of document.querySelectorAll<HTMLButtonElement>("#photos button")) {
    button.setAttribute("aria-pressed", String(button.dataset["name"] === name));
  }
  forget();
  await encode();
}

function forget(): void {
  history = [];
  mask = preview = hover = corner = null;
  found = [];
  render();
}

async function encode(): Promise<void> {
  encoded = false;
  render();
  if (photo === null) return;
  if (segmenter === null) return say("Waiting for the model.");
  stop?.abort();
  const mine = new AbortController();
  busy("Reading the photo", mine);
  try {
    const begun = performance.now();
    await segmenter.setImage(photo, { signal: mine.signal });
    if (stop === mine) busy(null);
    $("t-encode").textContent = ms(performance.now() - begun);
    encoded = true;
    say("Tap the object.");
    render();
    if (history.length > 0) ask();
  } catch (thrown) {
    if (stop === mine) {
      busy(null);
      say("The photo has not been read. Choose one again.");
    }
    fail(thrown);
  }
}

// Prompts: at most one prediction is under way; what is asked meanwhile replaces what waits.

let asking = false;
let askAgain = false;

function ask(): void {
  if (asking) {
    askAgain = true;
    return;
  }
  void answer();
}

async function answer(): Promise<void> {
  asking = true;
  try {
    do {
      askAgain = false;
      if (segmenter === null || !encoded) break;
      const asked = prompt();
      const { points, box } = asked === NOTHING && hover ? { points: [hover], box: null } : asked;
      if (points.length === 0 && box === null) {
        if (asked !== NOTHING) continue; // one of everything mode's, which has no prompt
        mask = preview = null;
        render();
        continue;
      }
      const begun = performance.now();
      const [made, score] = await segmenter.predict(points, box);
      $("t-decode").textContent = ms(performance.now() - begun);
      $("t-mask").textContent = ms(segmenter.timings.maskMs);
      if (prompt() !== asked) {
        askAgain = true;
        continue;
      }
      if (asked === NOTHING) {
        preview = made;
      } else {
        mask = cleaned(made);
        preview = null;
        const part = mask.data.reduce((sum, value) => sum + value, 0) / mask.data.length;
        say(`${(100 * part).toFixed(1)} % of the photo, predicted IoU ${score.toFixed(2)}.`);
      }
      $("error").hidden = true;
      render();
    } while (askAgain);
  } catch (thrown) {
    fail(thrown);
  } finally {
    asking = false;
  }
}

function cleaned(made: Mask): Mask {
  const area = Math.max(2, Math.round(made.data.length * SMALL));
  const filled = $<HTMLInputElement>("fill-holes").checked ? fillHoles(made, area) : made;
  return $<HTMLInputElement>("remove-islands").checked ? removeIslands(filled, area) : filled;
}

function push(next: Prompt): void {
  found = [];
  history.push(next);
  hover = null;
  render();
  ask();
}

function addPoint(at: { x: number; y: number }, remove: boolean): void {
  if (!encoded) return say("The photo is not ready yet.");
  const inside = chosenAmongFound(at);
  if (inside) return choose(inside);
  const { points, box } = prompt();
  push({ points: [...points, { ...at, label: remove ? 0 : 1 }], box });
}

function setBox(box: Box): void {
  if (!encoded) return say("The photo is not ready yet.");
  push({ points: prompt().points, box });
}

function undo(): void {
  if (found.length > 0 && history.length === 0) return forget();
  history.pop();
  if (history.length === 0) mask = null;
  say(history.length === 0 ? "Tap the object." : "Undone.");
  render();
  ask();
}

// Everything mode

async function findEverything(): Promise<void> {
  if (segmenter === null || !encoded) return;
  forget();
  const mine = new AbortController();
  busy("Looking at everything", mine);
  try {
    const begun = performance.now();
    const masks = await segmenter.everything(
      OVERVIEW,
      { signal: mine.signal, onProgress: (done, of) => ($("busy-text").textContent = `Looking at everything, ${Math.round((100 * done) / of)} %`) },
    );
    found = masks;
    const time = ms(performance.now() - begun);
    say(masks.length > 0 ? `${masks.length} objects in ${time}. Tap one to take it.` : `No objects found with certainty in ${time}. Tap one.`);
  } catch (thrown) {
    fail(thrown);
    say("Tap the object.");
  } finally {
    if (stop === mine) busy(null);
    render();
  }
}

/** The smallest found mask at a place. */
function chosenAmongFound({ x, y }: { x: number; y: number }): FoundMask | undefined {
  return found.findLast(({ box: [x0, y0, x1, y1], data }) => {
    const [u, v] = [Math.floor(x), Math.floor(y)];
    return u >= x0 && u <= x1 && v >= y0 && v <= y1 && data[(v - y0) * (x1 - x0 + 1) + u - x0] === 1;
  });
}

function choose(one: FoundMask): void {
  if (photo === null) return;
  mask = { ...wholeMask(one, photo), logits: new Float32Array() };
  history = [{ points: [], box: null }];
  say(`Predicted IoU ${one.score.toFixed(2)}.`);
  render();
}

// Pictures

async function save(picture: ImageData, name: string): Promise<void> {
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  canvas.getContext("2d")!.putImageData(picture, 0, 0);
  download(await canvas.convertToBlob({ type: "image/png" }), name);
}

function download(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function photoPixels(): ImageData {
  const canvas = new OffscreenCanvas(photo!.width, photo!.height);
  const context = canvas.getContext("2d")!;
  context.drawImage(photo!, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

// Pointer: a tap is a point, a drag a box. A finger's drag scrolls the page unless a box is asked for.

const mode = () => document.querySelector<HTMLInputElement>('input[name="mode"]:checked')!.value;

surface.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  const from = stage.place(event);
  if (from === null) return;
  cross = null;
  drag = { from, startX: event.clientX, startY: event.clientY, box: null, shift: event.shiftKey };
  if (event.pointerType === "mouse" || mode() === "box") surface.setPointerCapture(event.pointerId);
});
surface.addEventListener("pointermove", (event) => {
  const at = stage.place(event, drag !== null);
  if (drag && (event.pointerType === "mouse" || mode() === "box")) {
    const far = Math.hypot(event.clientX - drag.startX, event.clientY - drag.startY) > DRAG_PX;
    if (at && (far || drag.box)) drag.box = boxBetween(drag.from, at);
    return render();
  }
  if (event.pointerType !== "mouse" || history.length > 0 || found.length > 0 || !encoded) return;
  hover = at;
  ask();
});
surface.addEventListener("pointerup", (event) => {
  const ended = drag;
  drag = null;
  if (ended === null) return;
  if (ended.box) return setBox(ended.box);
  if (Math.hypot(event.clientX - ended.startX, event.clientY - ended.startY) <= DRAG_PX && mode() !== "box") {
    addPoint(ended.from, ended.shift || mode() === "remove");
  }
  render();
});
surface.addEventListener("pointercancel", () => {
  drag = null;
  render();
});
surface.addEventListener("pointerleave", () => {
  hover = null;
  if (history.length === 0) {
    preview = null;
    render();
  }
});

surface.addEventListener("keydown", (event) => {
  if (photo === null || event.ctrlKey || event.metaKey || event.altKey) return;
  cross ??= { x: photo.width / 2, y: photo.height / 2 };
  const step = Math.max(photo.width, photo.height) * KEY_STEP * (event.shiftKey ? 0.1 : 1);
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (move) {
    cross = {
      x: Math.min(Math.max(cross.x + move[0]! * step, 0), photo.width),
      y: Math.min(Math.max(cross.y + move[1]! * step, 0), photo.height),
    };
  } else if (event.key === "Enter" || event.key === " ") {
    addPoint(cross, event.shiftKey || mode() === "remove");
  } else if (event.key.toLowerCase() === "b") {
    const box = corner && boxBetween(corner, cross);
    if (corner === null) {
      corner = cross;
      say("First corner set. Move to the other one and press B.");
    } else {
      corner = null;
      if (box) setBox(box);
    }
  } else if (event.key.toLowerCase() === "u" || event.key === "Backspace") {
    undo();
  } else if (event.key === "Escape") {
    corner = null;
    forget();
  } else {
    return;
  }
  event.preventDefault();
  render();
});

for (const radio of document.querySelectorAll('input[name="mode"]')) {
  radio.addEventListener("change", () => surface.classList.toggle("boxing", mode() === "box"));
}

// Buttons

$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", () => {
  forget();
  say("Tap the object.");
});
$("cancel").addEventListener("click", () => stop?.abort());
$("everything").addEventListener("click", () => void findEverything());
$("save-mask").addEventListener("click", () => mask && void save(maskToImageData(mask), `${photoName}-mask.png`).catch(fail));
$("save-cutout").addEventListener("click", () => mask && void save(cutout(photoPixels(), mask), `${photoName}-cutout.png`).catch(fail));
for (const id of ["fill-holes", "remove-islands"]) $(id).addEventListener("change", () => mask && ask());
for (const id of ["engine", "webgpu"]) $(id).addEventListener("change", () => void loadModel());

const file = $<HTMLInputElement>("file");
file.addEventListener("change", () => {
  const chosen = file.files?.[0];
  if (chosen) void openPhoto(chosen, chosen.name);
  file.value = "";
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  stageElement.classList.add("dropping");
});
addEventListener("dragleave", (event) => event.relatedTarget === null && stageElement.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  stageElement.classList.remove("dropping");
  const dropped = event.dataTransfer?.files[0];
  if (dropped) void openPhoto(dropped, dropped.name);
});
addEventListener("paste", (event) => {
  const pasted = event.clipboardData?.files[0];
  if (pasted) void openPhoto(pasted, pasted.name);
});
addEventListener("resize", render);

for (const name of PHOTOS) {
  const button = document.createElement("button");
  const image = new Image();
  image.src = `photos/${name}.png`;
  image.alt = name.replace("_", " ");
  image.onerror = () => button.remove(); // a host may leave the photos out
  button.type = "button";
  button.dataset["name"] = name;
  button.setAttribute("aria-pressed", "false");
  button.append(image);
  button.addEventListener("click", async () => {
    try {
      await openPhoto(await (await fetch(image.src)).blob(), name);
    } catch (thrown) {
      fail(thrown);
    }
  });
  $("photos").append(button);
}

// Measuring

const dialog = $<HTMLDialogElement>("measure");
let receipt: Receipt | null = null;
$("measure-open").addEventListener("click", () => dialog.showModal());
$("measure-close").addEventListener("click", () => dialog.close());
$("receipt-save").addEventListener("click", () => {
  if (receipt) download(new Blob([JSON.stringify(receipt, null, 1) + "\n"], { type: "application/json" }), "mobilesam-receipt.json");
});
$("measure-start").addEventListener("click", async () => {
  if (segmenter === null) return void ($("measure-state").textContent = "Wait for the model to load.");
  const start = $<HTMLButtonElement>("measure-start");
  start.disabled = true;
  encoded = false;
  try {
    receipt = await measure(segmenter, new URL("vectors/", document.baseURI).href, $<HTMLInputElement>("device").value, (part, what) => {
      $<HTMLProgressElement>("measure-progress").value = part;
      $("measure-state").textContent = what;
    });
    $("receipt").textContent = JSON.stringify(receipt, null, 1);
    $("receipt").hidden = false;
    $<HTMLButtonElement>("receipt-save").disabled = false;
    $("measure-state").textContent = "Done.";
  } catch (thrown) {
    $("measure-state").textContent = thrown instanceof Error ? thrown.message : String(thrown);
  } finally {
    start.disabled = false;
    await encode();
  }
});

const wanted = new URLSearchParams(location.search).get("engine");
if (wanted === "onnxruntime" || wanted === "litert") $<HTMLSelectElement>("engine").value = wanted;
render();
void loadModel();
