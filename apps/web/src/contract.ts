/** What goes into the two models and what comes out, as mobilesam_export/contract.py says. */

export const CONTRACT_VERSION = "1";

/** RGB, 0 to 255, for what the photo does not cover of the model frame. */
export const PAD_COLOUR = [123.675, 116.28, 103.53] as const;
/** The same for encoders that take 8-bit pixels. */
export const PAD_COLOUR_8BIT = [124, 116, 104] as const;

/** Values of the decoder's `point_labels`. */
export const Label = {
  /** An unused slot, masked out of every attention. */
  absent: -2,
  /** SAM's padding point: one at (0, 0) whenever points come without a box. */
  padding: -1,
  background: 0,
  foreground: 1,
  boxTopLeft: 2,
  boxBottomRight: 3,
} as const;

/** The decoder's masks: row 0 the single answer, rows 1 to 3 the alternatives for one ambiguous tap. */
export const MASK_COUNT = 4;
export const MASK_THRESHOLD = 0;
export const EMBEDDING_CHANNELS = 256;

/** Larger photos are refused before memory is taken. */
export const LARGEST_PHOTO_PIXELS = 64_000_000;

export interface Size {
  readonly width: number;
  readonly height: number;
}
