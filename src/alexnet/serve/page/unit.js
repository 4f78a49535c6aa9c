/** One unit of a layer: its map, the filter that made it, and what excites it most. */

import { ask } from "./api.js";
import { byId, html } from "./dom.js";
import { sheet, spaced, tile } from "./sheets.js";
import { count } from "./words.js";
import { worker } from "./work.js";

/** Return the function that shows unit `number` (from 0) of an output of the chosen layer. */
export function unitPane(session) {
  const run = worker(byId("unit"), byId("unit-note"));
  return (output, number) => {
    byId("unit").hidden = false;
    byId("unit-title").textContent = title(session, number);
    run((signal) => fill(session, output, number, signal), "Looking for what excites it …");
  };
}

async function fill(session, output, number, signal) {
  const { model, layer } = session;
  const figures = byId("unit-figures");
  figures.replaceChildren();
  const show = (figure) => {
    signal.throwIfAborted();
    figures.append(figure);
  };
  const maps = await session.maps(output);
  if (layer.kind !== "dense") show(figure(tile(maps, number), ownWords(maps, number)));
  const conv = convOf(session);
  if (conv) show(await filterFigure(session, conv, number, signal));
  if (!model.has_training_images) {
    return "This server has no training images, from which to say what excites it most.";
  }
  const query = { layer: output, unit: number };
  const { patches, images } = await ask("exciting", { query, signal });
  show(patchFigure(patches.filter(({ activation }) => activation > 0)));
  return `Out of ${count(images)} training images.`;
}

function title({ model, layer }, number) {
  const kind = layer.kind === "dense" ? "unit" : "map";
  const isLast = layer === model.layers.at(-1);
  return isLast ? `${layer.name}: ${model.classes.names[number]}`
    : `${layer.name}, ${kind} ${number + 1} of ${count(layer.channels)}`;
}

function ownWords(maps, number) {
  const largest = maps.largest[number];
  return largest <= 0 ? "Its map: silent for this photograph."
    : `Its map of your photograph: strongest ${largest.toPrecision(3)}, mean ` +
      `${maps.means[number].toPrecision(3)}.`;
}

/** The convolution that made the maps of a layer: its own, or that of the layer before a pool. */
function convOf({ model, layer }) {
  const { layers, spec } = model;
  const row = layer.kind === "pool" ? layers[layers.indexOf(layer) - 1] : layer;
  return spec.convs.find((conv) => conv.name === row.name && !conv.locally_connected);
}

async function filterFigure({ model }, conv, number, signal) {
  const query = { layer: conv.name, unit: number };
  const filter = await sheet(await ask("filters", { query, signal }));
  const first = conv === model.spec.convs[0];
  const size = `${conv.kernel_size}×${conv.kernel_size}`;
  if (first) return figure(tile(filter, number), `Its filter, ${size} pixels of three colours.`);
  const words = `Its filter: ${size} weights for each of ${filter.filters} maps before it.`;
  return figure(spaced(filter, filter.filters), `${words} Grey is nought.`, "wide");
}

function patchFigure(patches) {
  const pictures = patches.map((patch) => html("img", { src: patch.image, alt: patch.class }));
  return html("figure", { class: "patches wide" }, html("div", {}, ...pictures),
    html("figcaption", {}, patches.length
      ? "The parts of training images that excite it most."
      : "No training image excites it."));
}

function figure(canvas, words, kind) {
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words);
  const caption = html("figcaption", { "aria-hidden": "true" }, words);
  return html("figure", { class: kind }, canvas, caption);
}
