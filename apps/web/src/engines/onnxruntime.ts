import * as ort from "onnxruntime-web/wasm";
import { EMBEDDING_CHANNELS } from "../contract.js";
import type { Engine, EngineOptions } from "./engine.js";

/** ONNX files in ONNX Runtime Web, on the CPU. */
export async function openOnnxRuntime(options: EngineOptions): Promise<Engine> {
  const threads = globalThis.crossOriginIsolated ? options.threads : 1;
  ort.env.wasm.wasmPaths = options.engineUrl;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "error";
  const open = (model: ArrayBuffer) => ort.InferenceSession.create(model, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
  const encoder = await open(options.encoder);
  const decoder = await open(options.decoder);
  const side = options.imageSize / 16;
  const low = options.imageSize / 4;

  async function run(session: ort.InferenceSession, inputs: Record<string, ort.Tensor>, outputs: readonly string[]): Promise<Float32Array[]> {
    const results = await session.run(inputs, outputs);
    const values = outputs.map((name) => Float32Array.from(results[name]!.data as Float32Array));
    for (const tensor of [...Object.values(inputs), ...Object.values(results)]) tensor.dispose();
    return values;
  }

  return {
    description: `ONNX Runtime Web ${ort.env.versions.web ?? ""}, wasm, ${threads} thread${threads > 1 ? "s" : ""}`,
    frame: { layout: "nchw", dtype: "float32" },
    async encode(frame) {
      const image = new ort.Tensor("float32", frame as Float32Array, [1, 3, options.imageSize, options.imageSize]);
      const [embedding] = await run(encoder, { image }, ["image_embeddings"]);
      return embedding!;
    },
    async decode(embedding, slots, mask) {
      const [logits, iouPredictions] = await run(
        decoder,
        {
          image_embeddings: new ort.Tensor("float32", embedding, [1, EMBEDDING_CHANNELS, side, side]),
          point_coords: new ort.Tensor("float32", slots.coords, [1, slots.labels.length, 2]),
          point_labels: new ort.Tensor("float32", slots.labels, [1, slots.labels.length]),
          mask_input: new ort.Tensor("float32", mask ?? new Float32Array(low * low), [1, 1, low, low]),
          has_mask_input: new ort.Tensor("float32", new Float32Array([mask === null ? 0 : 1]), [1]),
        },
        ["low_res_masks", "iou_predictions"],
      );
      return { logits: logits!, iouPredictions: iouPredictions! };
    },
    async close() {
      await encoder.release();
      await decoder.release();
    },
  };
}
