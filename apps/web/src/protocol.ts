import type { Size } from "./contract.js";
import type { ErrorCode } from "./errors.js";
import type { EverythingOptions, FoundMask } from "./everything.js";
import type { Mask } from "./masks.js";
import type { Box, Point } from "./prompts.js";

/** Between page and worker. The worker keeps the two models and nothing of the photo, so that it can be ended at any time. */
export type EngineName = "litert" | "onnxruntime";

export interface OpenRequest {
  readonly kind: "open";
  readonly engine: EngineName;
  readonly encoder: Blob;
  /** Null if both models are in the encoder's file. */
  readonly decoder: Blob | null;
  readonly engineUrl: string;
  readonly imageSize: number;
  readonly maxPoints: number | null;
  readonly threads: number;
  readonly webgpu: boolean;
}

export interface EncodeRequest {
  readonly kind: "encode";
  readonly photo: ImageBitmap | ImageData;
}

interface OnPhoto {
  readonly embedding: Float32Array;
  readonly photo: Size;
}

export interface PredictRequest extends OnPhoto {
  readonly kind: "predict";
  readonly points: readonly Point[];
  readonly box: Box | null;
  readonly previousLogits: Float32Array | null;
}

export interface EverythingRequest extends OnPhoto {
  readonly kind: "everything";
  readonly options: EverythingOptions;
}

export type Request = OpenRequest | EncodeRequest | PredictRequest | EverythingRequest;

/** What each request is answered with. */
export interface Answers {
  open: { readonly description: string };
  encode: { readonly embedding: Float32Array; readonly resizeMs: number; readonly encodeMs: number };
  predict: { readonly mask: Mask; readonly score: number; readonly decodeMs: number; readonly maskMs: number };
  everything: { readonly masks: FoundMask[] };
}

export type Message =
  | { readonly kind: "answer"; readonly value: Answers[keyof Answers] }
  | { readonly kind: "progress"; readonly done: number; readonly of: number }
  | { readonly kind: "error"; readonly code: ErrorCode; readonly message: string };
