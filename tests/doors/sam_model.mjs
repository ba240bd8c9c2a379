// What a program does with transformers.js's SamModel, in Node or in a page.
//
// `request.photos`: [{ file, prompts: [{ input_points, input_labels }] }], points in the photo's pixels.

/**
 * Segments by every prompt; `keep(photo, prompt, masks)` gets the masks, a byte a pixel at the photo's size.
 * Returns for each prompt the masks' shape, their IoU scores, and the shape in which the graph got the photo.
 */
export async function segment({ AutoProcessor, RawImage, SamModel }, name, options, photos, keep) {
  const model = await SamModel.from_pretrained(name, options);
  const processor = await AutoProcessor.from_pretrained(name);
  const answers = [];
  for (const [i, { file, prompts }] of photos.entries()) {
    const photo = await RawImage.read(file);
    const { pixel_values } = await processor(photo);
    const embeddings = await model.get_image_embeddings({ pixel_values });
    for (const [j, prompt] of prompts.entries()) {
      const inputs = await processor(photo, prompt);
      const { iou_scores, pred_masks } = await model({ ...inputs, ...embeddings });
      const [masks] = await processor.post_process_masks(pred_masks, inputs.original_sizes, inputs.reshaped_input_sizes);
      await keep(i, j, masks.data);
      answers.push({ photo: i, prompt: j, shape: masks.dims, iou: Array.from(iou_scores.data), seen: pixel_values.dims });
    }
  }
  return answers;
}
