// Asks transformers.js's SamModel, as a page or a Node program would: node sam_model.mjs REQUEST.json
//
// REQUEST: { model, dtype or null, out, resizer or null, photos: [{ file, prompts: [{ input_points, input_labels }] }] };
// points are in the photo's pixels. With a resizer, a file that has apps/web's `resizeLongestSide`, that resizes the
// photo before the processor sees it. For photo i and prompt j, `out` gets i.pixels (float32, the processor's), i-j.masks
// (bytes, at the photo's size) and answers.json with sizes, shapes and IoU scores.

import { readFile, writeFile } from "node:fs/promises";
import { dirname, basename } from "node:path";
import { AutoProcessor, RawImage, SamModel, env } from "@huggingface/transformers";

const request = JSON.parse(await readFile(process.argv[2], "utf8"));
env.allowRemoteModels = false;
env.localModelPath = dirname(request.model);
const name = basename(request.model);
const model = await SamModel.from_pretrained(name, request.dtype === null ? {} : { dtype: request.dtype });
const processor = await AutoProcessor.from_pretrained(name);

const resizer = request.resizer && (await import(request.resizer));

/** The photo at a longest side of 1024, and factors that take its x and y there. */
function framed(photo) {
  const { width, height, channels, data } = photo;
  const rows = (first, count) => data.subarray(first * width * channels, (first + count) * width * channels);
  const frame = resizer.resizeLongestSide({ width, height, channels, rows }, 1024);
  return { image: new RawImage(frame.data, frame.width, frame.height, 3), factors: [frame.width / width, frame.height / height] };
}

const answers = [];
for (const [i, { file, prompts }] of request.photos.entries()) {
  const photo = (await RawImage.read(file)).rgb();
  const { image, factors } = resizer ? framed(photo) : { image: photo, factors: [1, 1] };
  const { pixel_values } = await processor(image);
  const embeddings = await model.get_image_embeddings({ pixel_values });
  await writeFile(`${request.out}/${i}.pixels`, Buffer.from(pixel_values.data.buffer));
  for (const [j, prompt] of prompts.entries()) {
    const moved = (list) => (Array.isArray(list[0]) ? list.map(moved) : list.map((value, axis) => value * factors[axis]));
    const inputs = await processor(image, { ...prompt, input_points: moved(prompt.input_points) });
    const { iou_scores, pred_masks } = await model({ ...inputs, ...embeddings });
    const [masks] = await processor.post_process_masks(pred_masks, [[photo.height, photo.width]], inputs.reshaped_input_sizes);
    await writeFile(`${request.out}/${i}-${j}.masks`, Buffer.from(masks.data.buffer));
    answers.push({
      photo: i,
      prompt: j,
      shape: masks.dims,
      iou: Array.from(iou_scores.data),
      original: [photo.height, photo.width],
      reshaped: inputs.reshaped_input_sizes[0],
    });
  }
}
await writeFile(`${request.out}/answers.json`, JSON.stringify(answers));
