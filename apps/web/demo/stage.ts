import type { Box, FoundMask, Mask, Point, Size } from "../src/index.js";

const LARGEST_SIDE = 1600;
const TINT = [47, 111, 237] as const;

/** What is drawn over the photo. */
export interface Drawing {
  readonly mask: Pick<Mask, "width" | "height" | "data"> | null;
  /** A mask that only follows the pointer is drawn lighter. */
  readonly preview: boolean;
  readonly found: readonly FoundMask[];
  readonly points: readonly Point[];
  readonly box: Box | null;
  /** Where the keyboard's cross stands. */
  readonly cross: { x: number; y: number } | null;
}

/** Red, green, blue and alpha as ImageData has them, four bytes at a time. */
const word = (rgb: readonly number[], alpha: number) => new Uint32Array(new Uint8Array([...rgb, alpha]).buffer)[0]!;

/** The photo and its overlay, each a canvas of at most `LARGEST_SIDE`; coordinates are the photo's own pixels. */
export class Stage {
  #scale = 1;
  #size: Size = { width: 1, height: 1 };

  constructor(
    private readonly photoCanvas: HTMLCanvasElement,
    private readonly overlay: HTMLCanvasElement,
  ) {}

  show(photo: ImageBitmap): void {
    this.#size = { width: photo.width, height: photo.height };
    this.#scale = Math.min(1, LARGEST_SIDE / Math.max(photo.width, photo.height));
    for (const canvas of [this.photoCanvas, this.overlay]) {
      canvas.width = Math.max(1, Math.round(photo.width * this.#scale));
      canvas.height = Math.max(1, Math.round(photo.height * this.#scale));
      // Small photos fill the stage too.
      canvas.style.width = `min(100%, calc(min(72vh, 860px) * ${canvas.width / canvas.height}))`;
    }
    this.photoCanvas.getContext("2d")!.drawImage(photo, 0, 0, this.photoCanvas.width, this.photoCanvas.height);
  }

  /** A pointer's place in the photo's pixels, held inside the photo; null if it is beside it. */
  place(event: MouseEvent, hold = false): { x: number; y: number } | null {
    const shown = this.overlay.getBoundingClientRect();
    const x = ((event.clientX - shown.left) / shown.width) * this.#size.width;
    const y = ((event.clientY - shown.top) / shown.height) * this.#size.height;
    const held = { x: Math.min(Math.max(x, 0), this.#size.width), y: Math.min(Math.max(y, 0), this.#size.height) };
    return hold || (held.x === x && held.y === y) ? held : null;
  }

  draw(drawing: Drawing): void {
    const context = this.overlay.getContext("2d")!;
    const { width, height } = this.overlay;
    context.clearRect(0, 0, width, height);
    drawing.found.forEach((found, i) => this.#tintFound(context, found, i));
    if (drawing.mask) context.putImageData(this.#tint(drawing.mask, drawing.preview), 0, 0);
    context.save();
    context.scale(this.#scale, this.#scale);
    // Marks keep their size on the screen, whatever the photo's.
    const unit = this.#size.width / Math.max(1, this.overlay.getBoundingClientRect().width);
    if (drawing.box) this.#drawBox(context, drawing.box, unit);
    for (const point of drawing.points) this.#drawPoint(context, point, unit);
    if (drawing.cross) this.#drawCross(context, drawing.cross, unit);
    context.restore();
  }

  /** The mask sampled to the canvas: tinted inside, white along its edge. */
  #tint(mask: Pick<Mask, "width" | "height" | "data">, preview: boolean): ImageData {
    const { width, height } = this.overlay;
    const image = new ImageData(width, height);
    const columns = Int32Array.from({ length: width }, (_, x) => Math.min(mask.width - 1, Math.floor(((x + 0.5) * mask.width) / width)));
    const inside = new Uint8Array(width * height);
    for (let y = 0; y < height; y++) {
      const row = Math.min(mask.height - 1, Math.floor(((y + 0.5) * mask.height) / height)) * mask.width;
      for (let x = 0; x < width; x++) inside[y * width + x] = mask.data[row + columns[x]!]!;
    }
    const edge = Math.max(1, Math.round(width / 500));
    const words = new Uint32Array(image.data.buffer);
    const [line, area] = [word([255, 255, 255], preview ? 150 : 235), word(TINT, preview ? 80 : 125)];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const i = y * width + x;
        if (inside[i] === 0) continue;
        const outlined =
          inside[y * width + Math.max(x - edge, 0)] === 0 ||
          inside[y * width + Math.min(x + edge, width - 1)] === 0 ||
          inside[Math.max(y - edge, 0) * width + x] === 0 ||
          inside[Math.min(y + edge, height - 1) * width + x] === 0;
        words[i] = outlined ? line : area;
      }
    }
    return image;
  }

  #tintFound(context: CanvasRenderingContext2D, found: FoundMask, i: number): void {
    const [x0, y0, x1, y1] = found.box;
    const width = x1 - x0 + 1;
    const height = y1 - y0 + 1;
    const piece = new OffscreenCanvas(width, height);
    const pieces = piece.getContext("2d")!;
    const image = pieces.createImageData(width, height);
    const hue = (i * 137.5) % 360; // the golden angle keeps neighbours apart
    const colour = [0, 8, 4].map((n) => {
      const k = (n + hue / 30) % 12;
      return Math.round(255 * (0.58 - 0.35 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
    });
    const words = new Uint32Array(image.data.buffer);
    const area = word(colour, 135);
    for (let p = 0; p < found.data.length; p++) if (found.data[p] !== 0) words[p] = area;
    pieces.putImageData(image, 0, 0);
    context.drawImage(piece, x0 * this.#scale, y0 * this.#scale, width * this.#scale, height * this.#scale);
  }

  #drawBox(context: CanvasRenderingContext2D, [x0, y0, x1, y1]: Box, unit: number): void {
    for (const [colour, lineWidth, dash] of [["rgb(0 0 0 / 0.6)", 4, []], ["white", 2, [7, 5]]] as const) {
      context.strokeStyle = colour;
      context.lineWidth = lineWidth * unit;
      context.setLineDash(dash.map((length) => length * unit));
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    context.setLineDash([]);
  }

  #drawPoint(context: CanvasRenderingContext2D, { x, y, label }: Point, unit: number): void {
    const on = (label ?? 1) === 1;
    context.beginPath();
    context.arc(x, y, 9 * unit, 0, 2 * Math.PI);
    context.fillStyle = on ? "#137a3d" : "#b3261e";
    context.fill();
    context.lineWidth = 2 * unit;
    context.strokeStyle = "white";
    context.stroke();
    context.beginPath(); // plus or minus: not by colour alone
    context.moveTo(x - 4 * unit, y);
    context.lineTo(x + 4 * unit, y);
    if (on) {
      context.moveTo(x, y - 4 * unit);
      context.lineTo(x, y + 4 * unit);
    }
    context.stroke();
  }

  #drawCross(context: CanvasRenderingContext2D, { x, y }: { x: number; y: number }, unit: number): void {
    for (const [colour, width] of [["rgb(0 0 0 / 0.7)", 4], ["white", 2]] as const) {
      context.strokeStyle = colour;
      context.lineWidth = width * unit;
      context.beginPath();
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]] as const) {
        context.moveTo(x + 4 * dx * unit, y + 4 * dy * unit);
        context.lineTo(x + 16 * dx * unit, y + 16 * dy * unit);
      }
      context.stroke();
    }
  }
}
