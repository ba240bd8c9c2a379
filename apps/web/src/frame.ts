import { PAD_COLOUR, PAD_COLOUR_8BIT } from "./contract.js";
import type { RgbImage } from "./resize.js";

/** How an encoder takes its image: ONNX (1, 3, S, S) float32, TFLite (1, S, S, 3) float32 or uint8. */
export interface FrameFormat {
  readonly layout: "nchw" | "nhwc";
  readonly dtype: "float32" | "uint8";
}

/** The encoder's input: the resized photo in the top-left corner of S x S, the rest in the pad colour. */
export function modelFrame(photo: RgbImage, imageSize: number, format: FrameFormat): Float32Array | Uint8Array {
  const pixels = imageSize * imageSize;
  const frame = format.dtype === "uint8" ? new Uint8Array(3 * pixels) : new Float32Array(3 * pixels);
  const pad = format.dtype === "uint8" ? PAD_COLOUR_8BIT : PAD_COLOUR;
  const [pixelStep, channelStep] = format.layout === "nchw" ? [1, pixels] : [3, 1];
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < imageSize; y++) {
      const row = y * imageSize * pixelStep + c * channelStep;
      const covered = y < photo.height ? photo.width : 0;
      for (let x = 0; x < covered; x++) frame[row + x * pixelStep] = photo.data[(y * photo.width + x) * 3 + c]!;
      for (let x = covered; x < imageSize; x++) frame[row + x * pixelStep] = pad[c]!;
    }
  }
  return frame;
}
