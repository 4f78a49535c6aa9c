/** Sheets: many small pictures, such as a layer's maps, that come as one PNG in rows. */

import { html } from "./dom.js";

/** Take what the server sent, its PNG made a canvas. */
export async function sheet(sent) {
  const image = new Image();
  image.src = sent.image;
  await image.decode();
  const canvas = html("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  return { ...sent, canvas };
}

/** Draw the square root of every brightness, so that weak activations can be seen too. */
export function brightened(sheet) {
  const { width, height } = sheet.canvas;
  const pen = sheet.canvas.getContext("2d");
  const pixels = pen.getImageData(0, 0, width, height);
  const roots = Uint8ClampedArray.from({ length: 256 }, (_, value) => Math.sqrt(value / 255) * 255);
  for (let at = 0; at < pixels.data.length; at++) {
    if (at % 4 !== 3) pixels.data[at] = roots[pixels.data[at]]; // the fourth is opacity
  }
  pen.putImageData(pixels, 0, 0);
  return sheet;
}

/** Draw picture `number` of a sheet, pixel by pixel, on a canvas of its own. */
export function tile(sheet, number, canvas = html("canvas")) {
  const { size } = sheet;
  [canvas.width, canvas.height] = [size, size];
  const [x, y] = place(sheet, number);
  canvas.getContext("2d").drawImage(sheet.canvas, x, y, size, size, 0, 0, size, size);
  return canvas;
}

/** Draw a whole sheet on a canvas. */
export function whole(sheet, canvas = html("canvas")) {
  [canvas.width, canvas.height] = [sheet.canvas.width, sheet.canvas.height];
  canvas.getContext("2d").drawImage(sheet.canvas, 0, 0);
  return canvas;
}

/** Draw a sheet of `many` pictures with a pixel between them, as the paper's Figure 3 has it. */
export function spaced(sheet, many, canvas = html("canvas")) {
  const { size, columns } = sheet;
  canvas.width = columns * (size + 1) - 1;
  canvas.height = Math.ceil(many / columns) * (size + 1) - 1;
  const pen = canvas.getContext("2d");
  for (let number = 0; number < many; number++) {
    const [x, y] = place(sheet, number);
    const to = [x + x / size, y + y / size, size, size];
    pen.drawImage(sheet.canvas, x, y, size, size, ...to);
  }
  return canvas;
}

const place = ({ columns, size }, number) =>
  [(number % columns) * size, Math.floor(number / columns) * size];
