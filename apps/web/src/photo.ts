import { LARGEST_PHOTO_PIXELS, type Size } from "./contract.js";
import { MobileSamError } from "./errors.js";
import type { PixelSource } from "./resize.js";

/** What `setImage` takes: a file, or pixels that are upright already. */
export type Photo = Blob | ImageBitmap | ImageData;

/** Refuse photos without pixels, and those whose pixels would fill the memory. */
export function checkPhotoSize(size: Size): void {
  const pixels = size.width * size.height;
  if (!(pixels > 0 && pixels <= LARGEST_PHOTO_PIXELS)) {
    throw new MobileSamError(
      "image",
      `got a photo of ${size.width} x ${size.height} pixels, expected 1 to ${LARGEST_PHOTO_PIXELS / 1e6} million; give a smaller one`,
    );
  }
}

/**
 * A photo file's pixels, upright by its EXIF orientation and with its own colours (no colour management), as the
 * reference reads them. The size is looked at before the pixels are decoded.
 */
export async function decodePhoto(file: Blob): Promise<ImageBitmap> {
  checkPhotoSize(await photoFileSize(file));
  try {
    return await createImageBitmap(file, {
      imageOrientation: "from-image",
      premultiplyAlpha: "none",
      colorSpaceConversion: "none",
    });
  } catch {
    throw undecodable(file);
  }
}

/** Width and height of a photo file, from its head: an image element decodes pixels only when it is drawn. */
function photoFileSize(file: Blob): Promise<Size> {
  return new Promise((resolve, reject) => {
    const url = URL.createObjectURL(file);
    const image = new Image();
    image.onload = () => {
      URL.revokeObjectURL(url);
      resolve({ width: image.naturalWidth, height: image.naturalHeight });
    };
    image.onerror = () => {
      URL.revokeObjectURL(url);
      reject(undecodable(file));
    };
    image.src = url;
  });
}

function undecodable(file: Blob): MobileSamError {
  return new MobileSamError(
    "image",
    `this browser cannot decode the photo (${file.type || "unknown kind"}, ${file.size} bytes); give a JPEG, PNG or WebP file`,
  );
}

/** Rows of a bitmap through a small canvas: phones limit a canvas to fewer pixels than their cameras have. */
export function bitmapSource(bitmap: ImageBitmap): PixelSource {
  let canvas: OffscreenCanvas | undefined;
  return {
    width: bitmap.width,
    height: bitmap.height,
    channels: 4,
    rows(first, count) {
      if (canvas === undefined || canvas.height < count) canvas = new OffscreenCanvas(bitmap.width, count);
      const context = canvas.getContext("2d", { willReadFrequently: true });
      if (context === null) throw new MobileSamError("engine", "this browser gives no canvas to a worker; update it");
      context.globalCompositeOperation = "copy";
      context.drawImage(bitmap, 0, first, bitmap.width, count, 0, 0, bitmap.width, count);
      return context.getImageData(0, 0, bitmap.width, count).data;
    },
  };
}

export function imageDataSource(image: ImageData): PixelSource {
  const { width, height, data } = image;
  return { width, height, channels: 4, rows: (first, count) => data.subarray(first * width * 4, (first + count) * width * 4) };
}
