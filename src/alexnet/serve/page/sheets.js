/** Sheets: many small pictures, such as a layer's maps, that come as one PNG in rows. */

import { html } from "./dom.js";

/** Take what the server sent, with its PNG decoded. */
export async function sheet(sent) {
  return { ...sent, image: await decoded(sent.image) };
}

/** Decode a `data:` address. */
export async function decoded(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

/** Draw picture `number` of a sheet, pixel by pixel, on a canvas of its own. */
export function tile({ image, columns, size }, number, canvas = html("canvas")) {
  [canvas.width, canvas.height] = [size, size];
  const [x, y] = [number % columns, Math.floor(number / columns)];
  canvas.getContext("2d").drawImage(image, x * size, y * size, size, size, 0, 0, size, size);
  return canvas;
}

/** Draw a whole sheet on a canvas. */
export function whole({ image }, canvas = html("canvas")) {
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas;
}
