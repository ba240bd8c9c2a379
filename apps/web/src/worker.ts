import type { Engine } from "./engines/engine.js";
import { openLiteRt } from "./engines/litert.js";
import { openOnnxRuntime } from "./engines/onnxruntime.js";
import { asMobileSamError } from "./errors.js";
import { segmentEverything } from "./everything.js";
import { modelFrame } from "./frame.js";
import { logitsToMask } from "./masks.js";
import { bitmapSource, imageDataSource } from "./photo.js";
import { bestRow, isAmbiguous, promptSlots } from "./prompts.js";
import type { Answers, EncodeRequest, EverythingRequest, Message, OpenRequest, PredictRequest, Request } from "./protocol.js";
import { resizeLongestSide } from "./resize.js";

let engine: Engine;
let opened: OpenRequest;

function send(message: Message, transfer: Transferable[] = []): void {
  postMessage(message, { transfer });
}

async function open(request: OpenRequest): Promise<Answers["open"]> {
  const encoder = await request.encoder.arrayBuffer();
  const decoder = request.decoder === null ? encoder : await request.decoder.arrayBuffer();
  const start = { litert: openLiteRt, onnxruntime: openOnnxRuntime }[request.engine];
  engine = await start({ ...request, encoder, decoder });
  opened = request;
  return { description: engine.description };
}

async function encode({ photo }: EncodeRequest): Promise<Answers["encode"]> {
  const begun = performance.now();
  const resized = resizeLongestSide(photo instanceof ImageData ? imageDataSource(photo) : bitmapSource(photo), opened.imageSize);
  if (!(photo instanceof ImageData)) photo.close();
  const frame = modelFrame(resized, opened.imageSize, engine.frame);
  const ready = performance.now();
  const embedding = await engine.encode(frame);
  return { embedding, resizeMs: ready - begun, encodeMs: performance.now() - ready };
}

async function predict(request: PredictRequest): Promise<Answers["predict"]> {
  const { points, box, previousLogits, photo, embedding } = request;
  const begun = performance.now();
  const slots = promptSlots(points, box, photo, opened.imageSize, opened.maxPoints);
  const { logits, iouPredictions } = await engine.decode(embedding, slots, previousLogits);
  const decoded = performance.now();
  const row = bestRow(isAmbiguous(points, box, previousLogits !== null), iouPredictions);
  const pixels = (opened.imageSize / 4) ** 2;
  const mask = logitsToMask(logits.slice(row * pixels, (row + 1) * pixels), opened.imageSize, photo);
  return { mask, score: iouPredictions[row]!, decodeMs: decoded - begun, maskMs: performance.now() - decoded };
}

async function everything({ photo, embedding, options }: EverythingRequest): Promise<Answers["everything"]> {
  const masks = await segmentEverything(
    photo,
    opened.imageSize,
    options,
    (x, y) => engine.decode(embedding, promptSlots([{ x, y }], null, photo, opened.imageSize, opened.maxPoints), null),
    (done, of) => send({ kind: "progress", done, of }),
  );
  return { masks };
}

async function answer(request: Request): Promise<void> {
  switch (request.kind) {
    case "open":
      return send({ kind: "answer", value: await open(request) });
    case "encode": {
      const value = await encode(request);
      return send({ kind: "answer", value }, [value.embedding.buffer]);
    }
    case "predict": {
      const value = await predict(request);
      return send({ kind: "answer", value }, [value.mask.data.buffer, value.mask.logits.buffer]);
    }
    case "everything": {
      const value = await everything(request);
      return send({ kind: "answer", value }, value.masks.map((mask) => mask.data.buffer));
    }
  }
}

onmessage = async ({ data }: MessageEvent<Request>) => {
  try {
    await answer(data);
  } catch (thrown) {
    const error =
      data.kind === "open"
        ? asMobileSamError(thrown, "engine", `${data.engine} cannot load the models`)
        : asMobileSamError(thrown, "engine", `${opened.engine} failed; the photo may need more memory than there is`);
    send({ kind: "error", code: error.code, message: error.message });
  }
};
