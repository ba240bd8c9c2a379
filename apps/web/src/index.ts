/** MobileSAM in the browser: `const [mask, score] = await segmenter.predict([{ x, y }])`. */

export { cutout, maskToImageData } from "./bitmaps.js";
export type { BundleTarget } from "./bundle.js";
export { CONTRACT_VERSION, LARGEST_PHOTO_PIXELS, type Size } from "./contract.js";
export { MobileSamError, type ErrorCode } from "./errors.js";
export { wholeMask, type EverythingOptions, type FoundMask } from "./everything.js";
export { maskIou, type Mask } from "./masks.js";
export { decodePhoto, type Photo } from "./photo.js";
export { polygons, type Ring } from "./polygons.js";
export type { Box, Point } from "./prompts.js";
export type { EngineName } from "./protocol.js";
export { fillHoles, removeIslands } from "./regions.js";
export { Segmenter, type CallOptions, type LoadOptions, type Timings } from "./segmenter.js";
