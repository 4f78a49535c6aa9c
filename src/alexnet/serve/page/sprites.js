/** Sprite sheets: many small pictures, such as a layer's maps, that come as one PNG in rows. */

import { html } from "./dom.js";

/** Take what the server sent, its PNG made a canvas. */
export async function loadSprites(sent) {
  const image = new Image();
  image.src = sent.image;
  await image.decode();
  const canvas = html("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  return { ...sent, canvas };
}

/** Draw the square root of every brightness, so that weak activations can be seen too. */
export function brighten(sprites) {
  const { width, height } = sprites.canvas;
  const pen = sprites.canvas.getContext("2d");
  const pixels = pen.getImageData(0, 0, width, height);
  const roots = Uint8ClampedArray.from({ length: 256 }, (_, value) => Math.sqrt(value / 255) * 255);
  for (let at = 0; at < pixels.data.length; at++) {
    if (at % 4 !== 3) pixels.data[at] = roots[pixels.data[at]]; // the fourth is opacity
  }
  pen.putImageData(pixels, 0, 0);
  return sprites;
}

/** Draw picture `number`, pixel by pixel, on a canvas of its own. */
export function drawSprite(sprites, number, canvas = html("canvas")) {
  [canvas.width, canvas.height] = [sprites.size, sprites.size];
  copySprite(sprites, number, canvas.getContext("2d"), 0, 0);
  return canvas;
}

/** Draw the whole sheet on a canvas. */
export function drawSheet(sprites, canvas = html("canvas")) {
  [canvas.width, canvas.height] = [sprites.canvas.width, sprites.canvas.height];
  canvas.getContext("2d").drawImage(sprites.canvas, 0, 0);
  return canvas;
}

/** Draw the first `count` pictures with a pixel between them, as the paper's Figure 3 has it. */
export function drawSpaced(sprites, count, canvas = html("canvas")) {
  const { size, columns } = sprites;
  canvas.width = columns * (size + 1) - 1;
  canvas.height = Math.ceil(count / columns) * (size + 1) - 1;
  const pen = canvas.getContext("2d");
  for (let number = 0; number < count; number++) {
    const [x, y] = [number % columns, Math.floor(number / columns)];
    copySprite(sprites, number, pen, x * (size + 1), y * (size + 1));
  }
  return canvas;
}

function copySprite({ canvas, columns, size }, number, pen, x, y) {
  const [left, top] = [(number % columns) * size, Math.floor(number / columns) * size];
  pen.drawImage(canvas, left, top, size, size, x, y, size, size);
}
