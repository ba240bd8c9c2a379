import { cutout, fillHoles, MobileSamError, polygons, Segmenter } from "./src/index.js";

export async function cutOut(file: File, x: number, y: number, canvas: HTMLCanvasElement): Promise<void> {
  const segmenter = await Segmenter.load({
    bundleUrl: "/models/", // what mobilesam-export wrote: manifest.json and tflite/
    onProgress: (bytes, total) => console.log(`${Math.round((100 * bytes) / total)} %`),
  });
  try {
    await segmenter.setImage(file); // once a photo; EXIF is handled
    const [mask, score] = await segmenter.predict([{ x, y }]); // once a tap, in the photo's pixels
    const [better] = await segmenter.predict([{ x, y }, { x: 5, y: 5, label: 0 }], null, mask); // refine it
    const whole = fillHoles(better, 200);
    console.log(`${polygons(whole).length} outlines, predicted IoU ${score}`);

    const photo = await createImageBitmap(file);
    [canvas.width, canvas.height] = [photo.width, photo.height];
    const context = canvas.getContext("2d")!;
    context.drawImage(photo, 0, 0);
    context.putImageData(cutout(context.getImageData(0, 0, photo.width, photo.height), whole), 0, 0);
  } catch (error) {
    if (error instanceof MobileSamError) alert(error.message); // one sentence for people; error.code for programs
    else throw error;
  } finally {
    segmenter.close();
  }
}
