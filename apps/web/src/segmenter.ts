import { cancelled, fetchManifest, fetchModel, readManifest, type BundleTarget } from "./bundle.js";
import type { Size } from "./contract.js";
import { asMobileSamError, MobileSamError } from "./errors.js";
import type { EverythingOptions, FoundMask } from "./everything.js";
import type { Mask } from "./masks.js";
import { checkPhotoSize, decodePhoto, type Photo } from "./photo.js";
import { checkPrompt, type Box, type Point } from "./prompts.js";
import type { Answers, EngineName, Message, OpenRequest, Request } from "./protocol.js";

export interface LoadOptions {
  /** Folder of manifest.json, on any host that allows it. Default: `bundle/` beside the page. */
  readonly bundleUrl?: string | URL;
  /** LiteRT.js (default) takes TFLite files, ONNX Runtime Web ONNX files. */
  readonly engine?: EngineName;
  /** The built worker script; default: beside this module. */
  readonly workerUrl?: string | URL;
  /** Folder with `litert/` and `onnxruntime/`; default: `engines/` beside this module. */
  readonly engineUrl?: string | URL;
  /** Run the encoder on the GPU where there is one (LiteRT.js only); wasm otherwise. */
  readonly webgpu?: boolean;
  /** wasm threads; more than one needs a cross-origin isolated page. Default: all cores, at most 4. */
  readonly threads?: number;
  readonly onProgress?: (loadedBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Milliseconds of the last calls. */
export interface Timings {
  resizeMs: number;
  encodeMs: number;
  decodeMs: number;
  maskMs: number;
}

interface CurrentPhoto extends Size {
  readonly embedding: Float32Array;
}

/**
 * One photo, many prompts, one mask for each: `setImage`, `predict`, `reset`.
 *
 * Calls queue and run one at a time in a worker. A cancelled `setImage` or `everything` ends the worker; the next
 * call starts another, from the models that are in memory already. So does the call after an engine's failure.
 */
export class Segmenter {
  /** What runs where, for people. */
  description = "";
  readonly timings: Timings = { resizeMs: 0, encodeMs: 0, decodeMs: 0, maskMs: 0 };
  #worker: Worker | null = null;
  #photo: CurrentPhoto | null = null;
  #tail: Promise<unknown> = Promise.resolve();
  #closed = false;

  private constructor(
    readonly bundle: BundleTarget,
    private readonly workerUrl: string | URL,
    private readonly open: OpenRequest,
  ) {}

  /** Fetch a bundle's models and start their engine. */
  static async load(options: LoadOptions = {}): Promise<Segmenter> {
    const engine = options.engine ?? "litert";
    const signal = options.signal ?? null;
    checkBrowser();
    const here = import.meta.url;
    const base = typeof document === "undefined" ? here : document.baseURI;
    const bundleUrl = folder(new URL(options.bundleUrl ?? "bundle/", base));
    const bundle = readManifest(await fetchManifest(bundleUrl, signal), engine);
    const files = bundle.encoder === bundle.decoder ? [bundle.encoder] : [bundle.encoder, bundle.decoder];
    const total = files.reduce((sum, file) => sum + file.sizeBytes, 0);
    let loaded = 0;
    const [encoder, decoder] = await Promise.all(
      files.map((file) =>
        fetchModel(bundleUrl, file, (bytes) => options.onProgress?.((loaded += bytes), total), signal),
      ),
    );
    const segmenter = new Segmenter(bundle, options.workerUrl ?? new URL("./mobilesam-worker.js", here), {
      kind: "open",
      engine,
      encoder: encoder!,
      decoder: decoder ?? null,
      engineUrl: folder(new URL(`${engine}/`, folder(new URL(options.engineUrl ?? "./engines/", here)))),
      imageSize: bundle.imageSize,
      maxPoints: bundle.maxPoints,
      threads: Math.max(1, Math.floor(options.threads ?? Math.min(4, navigator.hardwareConcurrency || 1))),
      webgpu: options.webgpu ?? false,
    });
    try {
      await segmenter.#started(signal ?? undefined);
    } catch (thrown) {
      segmenter.close();
      throw thrown;
    }
    return segmenter;
  }

  /** Size of the photo that is set, or null. */
  get photo(): Size | null {
    return this.#photo && { width: this.#photo.width, height: this.#photo.height };
  }

  /** Embed a photo; later predictions are about it. If this fails, the earlier photo stays set. */
  setImage(photo: Photo, { signal }: CallOptions = {}): Promise<void> {
    return this.#queue(signal, async () => {
      const pixels = photo instanceof Blob ? await decodePhoto(photo) : photo;
      const size = { width: pixels.width, height: pixels.height };
      checkPhotoSize(size);
      // The caller keeps its own bitmap; what was decoded here is handed over.
      const transfer = photo instanceof Blob ? [pixels as ImageBitmap] : [];
      const answer = await this.#ask("encode", { kind: "encode", photo: pixels }, transfer, signal);
      this.timings.resizeMs = answer.resizeMs;
      this.timings.encodeMs = answer.encodeMs;
      this.#photo = { ...size, embedding: answer.embedding };
    });
  }

  /** The mask that a prompt means and the model's own estimate of its IoU; see apps/README.md. */
  predict(
    points: readonly Point[] = [],
    box: Box | null = null,
    previousMask: Mask | null = null,
    { signal }: CallOptions = {},
  ): Promise<[Mask, number]> {
    return this.#queue(signal, async () => {
      const photo = this.#requirePhoto();
      checkPrompt(points, box, previousMask !== null, photo, this.bundle.maxPoints);
      const low = this.bundle.imageSize / 4;
      if (previousMask !== null && previousMask.logits.length !== low * low) {
        throw new MobileSamError("mask_size", `got a previous mask with ${previousMask.logits.length} logits, expected ${low} x ${low}; pass one from this model`);
      }
      const { mask, score, decodeMs, maskMs } = await this.#ask("predict", {
        kind: "predict",
        points,
        box,
        previousLogits: previousMask?.logits ?? null,
        embedding: photo.embedding,
        photo: { width: photo.width, height: photo.height },
      }, [], signal, false);
      this.timings.decodeMs = decodeMs;
      this.timings.maskMs = maskMs;
      return [mask, score];
    });
  }

  /** Masks for a grid of points over the whole photo, largest first. */
  everything(
    options: EverythingOptions = {},
    { signal, onProgress }: CallOptions & { onProgress?: (done: number, of: number) => void } = {},
  ): Promise<FoundMask[]> {
    return this.#queue(signal, async () => {
      const photo = this.#requirePhoto();
      const request: Request = {
        kind: "everything",
        options,
        embedding: photo.embedding,
        photo: { width: photo.width, height: photo.height },
      };
      return (await this.#ask("everything", request, [], signal, true, onProgress)).masks;
    });
  }

  /** Forget the photo. */
  reset(): void {
    this.#requireOpen();
    this.#photo = null;
  }

  /** Release both models. Calls that wait are told so. */
  close(): void {
    this.#closed = true;
    this.#photo = null;
    this.#endWorker(new MobileSamError("closed", "the segmenter was closed; load another"));
  }

  #requireOpen(): void {
    if (this.#closed) throw new MobileSamError("closed", "the segmenter is closed; load another");
  }

  #requirePhoto(): CurrentPhoto {
    if (this.#photo === null) throw new MobileSamError("no_image", "no photo is set; call setImage(photo) first");
    return this.#photo;
  }

  /** Run a call when those before it are done. */
  #queue<T>(signal: AbortSignal | undefined, call: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(() => {
      this.#requireOpen();
      if (signal?.aborted) throw cancelled();
      return call();
    });
    this.#tail = result.catch(() => undefined);
    return result;
  }

  #fail: ((error: MobileSamError) => void) | null = null;

  #endWorker(error: MobileSamError): void {
    this.#worker?.terminate();
    this.#worker = null;
    this.#fail?.(error);
  }

  async #started(signal?: AbortSignal): Promise<void> {
    if (this.#worker !== null) return;
    try {
      this.#worker = new Worker(this.workerUrl);
    } catch (thrown) {
      throw asMobileSamError(thrown, "engine", "the worker cannot start");
    }
    this.description = (await this.#exchange<Answers["open"]>(this.open, [], signal, true)).description;
  }

  async #ask<K extends keyof Answers>(
    _kind: K,
    request: Request,
    transfer: Transferable[],
    signal: AbortSignal | undefined,
    endOnCancel = true,
    onProgress?: (done: number, of: number) => void,
  ): Promise<Answers[K]> {
    await this.#started(signal);
    return this.#exchange<Answers[K]>(request, transfer, signal, endOnCancel, onProgress);
  }

  /** Send one request and wait for its answer. Nothing else is under way. */
  #exchange<T>(
    request: Request,
    transfer: Transferable[],
    signal: AbortSignal | undefined,
    endOnCancel: boolean,
    onProgress?: (done: number, of: number) => void,
  ): Promise<T> {
    const worker = this.#worker!;
    return new Promise<T>((resolve, reject) => {
      const done = () => {
        signal?.removeEventListener("abort", abort);
        this.#fail = worker.onmessage = worker.onerror = worker.onmessageerror = null;
      };
      // WebAssembly cannot be interrupted: the worker is ended. A prediction is short; its caller waits for it.
      const abort = () => endOnCancel && this.#endWorker(cancelled());
      this.#fail = (error) => {
        done();
        reject(error);
      };
      worker.onmessage = ({ data }: MessageEvent<Message>) => {
        if (data.kind === "progress") return onProgress?.(data.done, data.of);
        if (data.kind === "error") {
          const error = new MobileSamError(data.code, data.message);
          // A runtime that failed once may be in any state.
          return data.code === "engine" || request.kind === "open" ? this.#endWorker(error) : this.#fail?.(error);
        }
        done();
        if (signal?.aborted) reject(cancelled());
        else resolve(data.value as T);
      };
      worker.onerror = (event) => {
        event.preventDefault();
        this.#endWorker(new MobileSamError("engine", `the worker failed (${event.message || "its script cannot be loaded"}); reload the page`));
      };
      worker.onmessageerror = () => this.#endWorker(new MobileSamError("engine", "the worker's answer cannot be read; try a smaller photo"));
      signal?.addEventListener("abort", abort);
      if (signal?.aborted) return this.#endWorker(cancelled());
      try {
        worker.postMessage(request, transfer);
      } catch (thrown) {
        this.#fail?.(asMobileSamError(thrown, "engine", "the photo cannot be handed to the worker"));
      }
    });
  }
}

function checkBrowser(): void {
  if (typeof WebAssembly !== "object") {
    throw new MobileSamError("engine", "this browser has no WebAssembly, or it is switched off; use another");
  }
  if (typeof Worker !== "function") throw new MobileSamError("engine", "this browser has no workers; use another");
}

function folder(url: URL): string {
  return url.href.endsWith("/") ? url.href : `${url.href}/`;
}
