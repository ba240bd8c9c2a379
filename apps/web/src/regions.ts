import type { Mask } from "./masks.js";

/** Fill regions outside the mask of fewer than `area` pixels. Neighbours are 8, as in SAM; a region at the photo's edge counts. */
export function fillHoles(mask: Mask, area: number): Mask {
  const { labels, areas } = regions(mask, 0);
  return { ...mask, data: mask.data.map((value, i) => (value === 0 && areas[labels[i]!]! < area ? 1 : value)) };
}

/** Drop regions of the mask of fewer than `area` pixels; the largest stays (the first of equal ones) if all are small. */
export function removeIslands(mask: Mask, area: number): Mask {
  const { labels, areas } = regions(mask, 1);
  let largest = 0;
  for (let i = 1; i < areas.length; i++) if (areas[i]! > areas[largest]!) largest = i;
  const allSmall = areas.every((pixels) => pixels < area);
  const stays = areas.map((pixels, i) => (allSmall ? i === largest : pixels >= area));
  return { ...mask, data: mask.data.map((value, i) => (value !== 0 && stays[labels[i]!] ? 1 : 0)) };
}

/** Regions of pixels with the given value, in reading order of their first pixels. */
function regions(mask: Mask, of: 0 | 1): { labels: Int32Array; areas: number[] } {
  const { width, height, data } = mask;
  const labels = new Int32Array(data.length).fill(-1);
  const areas: number[] = [];
  let waiting: number[] = [];
  for (let start = 0; start < data.length; start++) {
    if (labels[start] !== -1 || (data[start] !== 0 ? 1 : 0) !== of) continue;
    const label = areas.length;
    labels[start] = label;
    waiting = [start];
    let area = 0;
    for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
      area++;
      const x = at % width;
      const y = (at - x) / width;
      for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, height - 1); v++) {
        for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, width - 1); u++) {
          const next = v * width + u;
          if (labels[next] === -1 && (data[next] !== 0 ? 1 : 0) === of) {
            labels[next] = label;
            waiting.push(next);
          }
        }
      }
    }
    areas.push(area);
  }
  return { labels, areas };
}
