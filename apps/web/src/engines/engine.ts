import type { FrameFormat } from "../frame.js";
import type { Decoded } from "../everything.js";
import type { Slots } from "../prompts.js";

/** Both models of a bundle in one runtime. Lives in the worker; calls never overlap. */
export interface Engine extends Decoder {
  /** What runs where, for people: "LiteRT.js 2.5.3, wasm, 2 threads". */
  readonly description: string;
  readonly frame: FrameFormat;
  /** Embed a model frame. The embedding has the runtime's own layout and goes to `decode` as it is. */
  encode(frame: Float32Array | Uint8Array): Promise<Float32Array>;
  close(): Promise<void>;
}

export interface Decoder {
  decode(embedding: Float32Array, slots: Slots, mask: Float32Array | null): Promise<Decoded>;
}

export interface EngineOptions {
  readonly encoder: ArrayBuffer;
  readonly decoder: ArrayBuffer;
  /** Folder of the runtime's own .wasm and .js files, ending in a slash. */
  readonly engineUrl: string;
  readonly imageSize: number;
  readonly threads: number;
  /** Run the encoder on the GPU if there is one. */
  readonly webgpu: boolean;
}
