import { CONTRACT_VERSION } from "./contract.js";
import { asMobileSamError, MobileSamError } from "./errors.js";
import type { EngineName } from "./protocol.js";

/** What a host needs of a bundle's manifest.json for one target. */
export interface BundleTarget {
  readonly imageSize: number;
  /** Slots of the decoder; null for any number. */
  readonly maxPoints: number | null;
  readonly precision: string;
  readonly weightsSha256: string;
  /** What everybody who uses these weights must know, or null. */
  readonly notice: string | null;
  readonly encoder: ModelFile;
  /** The same object as `encoder` if one file has both. */
  readonly decoder: ModelFile;
}

export interface ModelFile {
  readonly path: string;
  readonly sizeBytes: number;
  readonly sha256: string;
}

const TARGETS = { litert: "tflite", onnxruntime: "onnx" } as const;
const LARGEST_MODEL_BYTES = 2 ** 30;

/** Read a manifest for one engine. Everything in it is checked: it comes from outside. */
export function readManifest(manifest: unknown, engine: EngineName): BundleTarget {
  const name = TARGETS[engine];
  const root = record(manifest, "manifest.json");
  if (root["format"] !== "mobilesam-export-bundle") throw damaged(`format ${JSON.stringify(root["format"])}`);
  const target = record(root["targets"], "targets")[name];
  if (target === undefined) {
    throw new MobileSamError("model_file", `the bundle has no ${name} files; export them with --target ${name}, or choose the other engine`);
  }
  const entry = record(target, name);
  const contract = record(entry["contract"], "contract");
  if (root["contract_version"] !== CONTRACT_VERSION || contract["version"] !== CONTRACT_VERSION) {
    throw new MobileSamError(
      "contract_version",
      `the models follow contract version ${String(root["contract_version"])}, this code ${CONTRACT_VERSION}; export them again, or update mobilesam`,
    );
  }
  const options = record(entry["options"] ?? {}, "options");
  if (options["official_decoder"] || options["single_mask"]) {
    throw new MobileSamError("model_file", "the decoder has another interface; export without --official-decoder and --single-mask");
  }
  const imageSize = contract["image_size"];
  const maxPoints = contract["max_points"];
  if (!Number.isInteger(imageSize) || (imageSize as number) < 32 || (imageSize as number) > 4096 || (imageSize as number) % 32 !== 0) {
    throw damaged(`image_size ${String(imageSize)}`);
  }
  if (maxPoints !== null && (!Number.isInteger(maxPoints) || (maxPoints as number) < 1 || (maxPoints as number) > 1024)) {
    throw damaged(`max_points ${String(maxPoints)}`);
  }
  const weights = record(root["weights"], "weights");
  const files = Array.isArray(entry["files"]) ? entry["files"] : [];
  const encoder = modelFile(files, "encoder");
  const decoder = modelFile(files, "decoder");
  return {
    imageSize: imageSize as number,
    maxPoints: maxPoints as number | null,
    precision: String(entry["precision"]),
    weightsSha256: String(weights["sha256"]),
    notice: typeof weights["notice"] === "string" ? weights["notice"] : null,
    encoder,
    decoder: decoder.path === encoder.path ? encoder : decoder,
  };
}

function modelFile(files: unknown[], role: string): ModelFile {
  for (const file of files) {
    const entry = record(file, "files");
    if (entry["role"] !== role && entry["role"] !== "combined") continue;
    const { path, size_bytes: sizeBytes, sha256 } = entry;
    if (typeof path !== "string" || path.startsWith("/") || path.includes(":") || path.split("/").includes("..")) {
      throw damaged(`path ${JSON.stringify(path)}`);
    }
    if (!Number.isInteger(sizeBytes) || (sizeBytes as number) < 1 || (sizeBytes as number) > LARGEST_MODEL_BYTES) {
      throw damaged(`size_bytes ${String(sizeBytes)}`);
    }
    return { path, sizeBytes: sizeBytes as number, sha256: String(sha256) };
  }
  throw damaged(`no ${role}`);
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw damaged(`no ${what}`);
  return value as Record<string, unknown>;
}

function damaged(what: string): MobileSamError {
  return new MobileSamError("model_file", `manifest.json is no bundle's manifest (${what}); export the bundle again`);
}

/** Fetch a bundle's manifest. */
export async function fetchManifest(bundleUrl: string, signal: AbortSignal | null): Promise<unknown> {
  const response = await get(`${bundleUrl}manifest.json`, signal);
  try {
    return await response.json();
  } catch {
    throw damaged("not JSON");
  }
}

/** Fetch a model file and compare it with the manifest: its size always, its sha256 where the page is secure. */
export async function fetchModel(
  bundleUrl: string,
  file: ModelFile,
  progress: (bytes: number) => void,
  signal: AbortSignal | null,
): Promise<Blob> {
  const response = await get(bundleUrl + file.path, signal);
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  try {
    const reader = response.body!.getReader();
    for (let { done, value } = await reader.read(); !done && value !== undefined; { done, value } = await reader.read()) {
      bytes += value.byteLength;
      if (bytes > file.sizeBytes) {
        await reader.cancel();
        break;
      }
      parts.push(value as Uint8Array<ArrayBuffer>);
      progress(value.byteLength);
    }
  } catch (thrown) {
    if (signal?.aborted) throw cancelled();
    throw asMobileSamError(thrown, "model_file", `${file.path} broke off after ${bytes} of ${file.sizeBytes} bytes; try again`);
  }
  if (bytes !== file.sizeBytes) {
    const got = bytes > file.sizeBytes ? "more" : `${bytes}`;
    throw new MobileSamError("model_file", `${file.path} has ${got} bytes instead of ${file.sizeBytes}; upload it again`);
  }
  const blob = new Blob(parts);
  if (globalThis.crypto?.subtle !== undefined) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
    const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (sha256 !== file.sha256) {
      throw new MobileSamError("model_file", `${file.path} has been changed (another sha256); upload it again`);
    }
  }
  return blob;
}

async function get(url: string, signal: AbortSignal | null): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { signal });
  } catch (thrown) {
    if (signal?.aborted) throw cancelled();
    throw asMobileSamError(thrown, "model_file", `${url} cannot be fetched; check the address and the network`);
  }
  if (!response.ok) throw new MobileSamError("model_file", `${url} is missing (HTTP ${response.status}); check the address`);
  return response;
}

export function cancelled(): MobileSamError {
  return new MobileSamError("cancelled", "cancelled by the caller");
}
