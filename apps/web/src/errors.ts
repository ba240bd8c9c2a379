/** What went wrong; the same strings in every host (apps/README.md). */
export type ErrorCode =
  | "no_image"
  | "no_prompt"
  | "point_outside"
  | "point_label"
  | "box_corners"
  | "too_many_points"
  | "mask_size"
  | "image"
  | "contract_version"
  | "model_file"
  | "engine"
  | "cancelled"
  | "closed";

/** One sentence that says what was got and what to do next, and a code to switch on. */
export class MobileSamError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
  ) {
    super(message);
    this.name = "MobileSamError";
  }
}

/** An unknown thrown value as a MobileSamError; what is none yet gets `code`, and `told` before its own words. */
export function asMobileSamError(thrown: unknown, code: ErrorCode, told: string): MobileSamError {
  if (thrown instanceof MobileSamError) return thrown;
  const reason = thrown instanceof Error ? thrown.message : String(thrown);
  return new MobileSamError(code, `${told} (${reason.split("\n")[0]})`);
}
