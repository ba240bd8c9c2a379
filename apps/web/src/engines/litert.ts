import { getWebGpuDevice, loadAndCompile, loadLiteRt, supportsFeature, Tensor, type CompiledModel, type TypedArray } from "@litertjs/core";
import { EMBEDDING_CHANNELS } from "../contract.js";
import { MobileSamError } from "../errors.js";
import type { Engine, EngineOptions } from "./engine.js";

const VERSION = "2.5.3";

/** TFLite files in LiteRT.js. The decoder stays on the CPU: on WebGPU it loses precision (mask IoU 0.996). */
export async function openLiteRt(options: EngineOptions): Promise<Engine> {
  const threads = options.threads > 1 && (await supportsFeature("threads")) && (await supportsFeature("relaxedSimd")) ? options.threads : 1;
  // Emscripten looks for its files beside the script that runs, and starts its threads from it: here that is ours.
  const script = `${options.engineUrl}litert_wasm_threaded_internal.js`;
  Object.assign(globalThis, {
    Module: { locateFile: (file: string) => options.engineUrl + file, ...(threads > 1 ? { mainScriptUrlOrBlob: script } : {}) },
  });
  await loadLiteRt(options.engineUrl, { threads: threads > 1 });
  const gpu = options.webgpu ? getWebGpuDevice() : null;
  const cpu = { accelerator: "wasm", cpuOptions: { numThreads: threads } } as const;
  const encoder = await loadAndCompile(
    new Uint8Array(options.encoder),
    gpu === null ? cpu : { accelerator: "webgpu", gpuOptions: { precision: "fp32" } },
  );
  // Both signatures of a combined file are in one model.
  const decoder = options.decoder === options.encoder && gpu === null ? encoder : await loadAndCompile(new Uint8Array(options.decoder), cpu);
  const encode = signature(encoder, "encode");
  const decode = signature(decoder, "decode");
  const image = encode.getInputDetails()[0];
  if (image === undefined || image.shape[1] !== options.imageSize) {
    throw new MobileSamError("model_file", `the encoder takes ${image?.shape.join(" x ")}, the manifest says ${options.imageSize}; export again`);
  }
  const side = options.imageSize / 16;
  const low = options.imageSize / 4;
  const lost = gpu?.lost.then((info) => {
    throw new MobileSamError("engine", `the GPU was lost (${info.message || info.reason}); try again, or without WebGPU`);
  });
  lost?.catch(() => undefined); // told by the call that it breaks

  async function run(runner: ReturnType<typeof signature>, inputs: Record<string, Tensor>, outputs: readonly string[]): Promise<Float32Array[]> {
    const results: Record<string, Tensor> = {};
    try {
      Object.assign(results, await (lost ? Promise.race([runner.run(inputs), lost]) : runner.run(inputs)));
      return await Promise.all(
        outputs.map(async (name) => Float32Array.from((await results[name]!.data()) as Float32Array)),
      );
    } finally {
      for (const tensor of [...Object.values(inputs), ...Object.values(results)]) tensor.delete();
    }
  }

  return {
    description: `LiteRT.js ${VERSION}, ${gpu === null ? "wasm" : "WebGPU encoder, wasm decoder"}, ${threads} thread${threads > 1 ? "s" : ""}`,
    frame: { layout: "nhwc", dtype: image.dtype === "uint8" ? "uint8" : "float32" },
    async encode(frame) {
      const shape = [1, options.imageSize, options.imageSize, 3];
      const image = Tensor.fromTypedArray(frame as TypedArray, shape);
      const [embedding] = await run(encode, { image }, ["image_embeddings"]);
      return embedding!;
    },
    async decode(embedding, slots, mask) {
      const [logits, iouPredictions] = await run(
        decode,
        {
          image_embeddings: new Tensor(embedding, [1, side, side, EMBEDDING_CHANNELS]),
          point_coords: new Tensor(slots.coords, [1, slots.labels.length, 2]),
          point_labels: new Tensor(slots.labels, [1, slots.labels.length]),
          mask_input: new Tensor(mask ?? new Float32Array(low * low), [1, 1, low, low]),
          has_mask_input: new Tensor(new Float32Array([mask === null ? 0 : 1]), [1]),
        },
        ["low_res_masks", "iou_predictions"],
      );
      return { logits: logits!, iouPredictions: iouPredictions! };
    },
    async close() {
      encoder.delete();
      if (decoder !== encoder) decoder.delete();
    },
  };
}

function signature(model: CompiledModel, name: string) {
  const found = model.signatures[name];
  if (found === undefined) throw new MobileSamError("model_file", `the model has no signature ${name}; export it with mobilesam-export`);
  return found;
}
