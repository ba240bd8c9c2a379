import { MobileSamError } from "./errors.js";
import type { Mask } from "./masks.js";

/** The mask as a bitmap: white on the object, black elsewhere, opaque; or in a colour on transparent. */
export function maskToImageData(mask: Mask, colour?: readonly [number, number, number, number]): ImageData {
  const image = new ImageData(mask.width, mask.height);
  const words = new Uint32Array(image.data.buffer);
  const word = (r: number, g: number, b: number, a: number) =>
    new Uint32Array(new Uint8Array([r, g, b, a]).buffer)[0]!;
  const on = colour ? word(...colour) : word(255, 255, 255, 255);
  const off = colour ? 0 : word(0, 0, 0, 255);
  for (let i = 0; i < words.length; i++) words[i] = mask.data[i] !== 0 ? on : off;
  return image;
}

/** The photo with alpha 255 in the mask and 0 outside. */
export function cutout(photo: ImageData, mask: Mask): ImageData {
  if (photo.width !== mask.width || photo.height !== mask.height) {
    throw new MobileSamError(
      "image",
      `got a photo of ${photo.width} x ${photo.height} pixels for a mask of ${mask.width} x ${mask.height}; give the mask's own photo`,
    );
  }
  const cut = new ImageData(new Uint8ClampedArray(photo.data), photo.width, photo.height);
  for (let i = 0; i < mask.data.length; i++) cut.data[4 * i + 3] = mask.data[i] !== 0 ? 255 : 0;
  return cut;
}
