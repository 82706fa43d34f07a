/** From an image file to pixels, by the browser's own decoders. */

import { type Picture, TaskError } from 'csk-sdk';

// A phone's photo has 12 million pixels; of larger ones not even a thumbnail is needed here.
const MOST_PIXELS = 100_000_000;

/** Throws TaskError, naming the image, where the browser cannot read it. */
export async function decode(file: Blob): Promise<Picture> {
  const name = file instanceof File && file.name ? file.name : 'This image';
  let bitmap: ImageBitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new TaskError(`${name} cannot be read as an image: leave it out, or save it as JPEG or PNG.`);
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) {
    bitmap.close();
    throw new TaskError(
      `${name} has ${width} x ${height} pixels, which is too large: make it smaller first.`,
    );
  }
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  if (!context) throw new TaskError(`${name} cannot be drawn: close other tabs, and try again.`);
  // Transparent parts are white, as on a page.
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}
