/**
 * The chosen layer: what it does, its arithmetic and its maps of the photograph; and of a chosen
 * unit its map, the filter that made it, and what excites it most.
 */

import { request } from "./api.js";
import { byId, describe, html, latestOnly, radio } from "./dom.js";
import { drawSheet, drawSpaced, drawSprite, loadSprites } from "./sprites.js";
import { convBehind, count, layerSentence, sideArithmetic } from "./text.js";

export function start(session) {
  const run = latestOnly(byId("layer"), byId("layer-note"));
  const runUnit = latestOnly(byId("unit"), byId("unit-note"));
  const showUnit = (number) => {
    byId("unit").hidden = false;
    byId("unit-title").textContent = unitTitle(session, number);
    runUnit((signal) => fillUnit(session, number, signal), "Looking for what excites it …");
  };
  const update = () =>
    run((signal) => showMaps(session, showUnit, signal), "Asking for the maps …");

  session.addEventListener("layer", () => {
    describeLayer(session);
    offerOutputs(session);
    update();
  });
  session.addEventListener("photograph", update);
  byId("outputs").addEventListener("change", update);
  byId("units").addEventListener("change", (event) => showUnit(Number(event.target.value)));
}

function describeLayer({ model, layer }) {
  const { name, kind, channels, size, parameters, macs } = layer;
  byId("layer-title").textContent = name;
  byId("layer-words").textContent = layerSentence(layer, model);
  const facts = [
    kind === "dense" ? ["Units", count(channels)] : ["Size", `${channels} × ${size} × ${size}`],
    ["Side", sideArithmetic(layer, model)],
    ["Parameters", parameters && `${layer.arithmetic.replaceAll("x", "×")} = ${count(parameters)}`],
    ["Multiplications", macs && count(macs)],
  ];
  describe(byId("layer-facts"), facts.filter(([, value]) => value));
}

/** A convolution can be looked at before its activation, after it, after the norm. */
function offerOutputs(session) {
  const names = session.outputs(session.layer);
  const shown = session.shownOutput(session.layer);
  const place = byId("outputs");
  const buttons = names.map((name) => radio("output", name, [name], { checked: name === shown }));
  place.replaceChildren(place.firstElementChild, ...buttons);
  place.hidden = names.length < 2;
}

const chosenOutput = () => byId("outputs").querySelector("input:checked")?.value;

async function showMaps(session, showUnit, signal) {
  const units = byId("units");
  const output = chosenOutput();
  const { layer } = session;
  byId("unit").hidden = true;
  units.replaceChildren(units.firstElementChild);
  if (!output) return "The network's own frame on the photograph is its input.";
  if (!session.photograph) return "Its maps appear here when there is a photograph.";
  const maps = await session.maps(output);
  const filters = await loadFirstFilters(session, signal);
  signal.throwIfAborted();
  if (layer.kind === "dense") {
    units.append(...unitPicker(maps, showUnit));
    return "Each square is a unit, the brighter the stronger. Choose one by its number.";
  }
  units.append(...Array.from({ length: layer.channels }, (_, n) => mapButton(n, maps, filters)));
  return "White is strong, black is nothing. Choose a map to see what made it.";
}

/** The filters that see pixels can be shown as pixels, beside their maps; later ones cannot. */
async function loadFirstFilters({ model, layer }, signal) {
  const [first] = model.spec.convs;
  if (layer.name !== first.name || first.locally_connected) return null;
  return loadSprites(await request("filters", { query: { layer: first.name }, signal }));
}

function mapButton(number, maps, filters) {
  const children = [drawSprite(maps, number)];
  if (filters) {
    children.push(drawSprite(filters, number));
    children[1].className = "filter";
  }
  const silent = maps.largest[number] <= 0 ? ", silent" : "";
  return radio("unit", number, children, { label: `map ${number + 1}${silent}` });
}

/** Thousands of units have no button each: a picture of all of them, and a field for a number. */
function unitPicker(maps, showUnit) {
  const field = html("input", { type: "number", min: 1, max: maps.maps, value: 1 });
  const picture = drawSheet(maps);
  picture.className = "all-units";
  picture.setAttribute("aria-hidden", "true");
  picture.addEventListener("click", ({ offsetX, offsetY }) => {
    const column = Math.floor((offsetX / picture.clientWidth) * maps.columns);
    const row = Math.floor((offsetY / picture.clientHeight) * Math.ceil(maps.maps / maps.columns));
    const unit = row * maps.columns + column;
    if (unit >= maps.maps) return;
    field.value = unit + 1;
    showUnit(unit);
  });
  field.addEventListener("change", (event) => {
    event.stopPropagation();
    if (field.reportValidity()) showUnit(field.value - 1);
  });
  return [html("label", { class: "number" }, "Unit ", field), picture];
}

function unitTitle({ model, layer }, number) {
  if (layer === model.layers.at(-1)) return `${layer.name}: ${model.classes.names[number]}`;
  const kind = layer.kind === "dense" ? "unit" : "map";
  return `${layer.name}, ${kind} ${number + 1} of ${count(layer.channels)}`;
}

async function fillUnit(session, number, signal) {
  const { model, layer } = session;
  const output = chosenOutput();
  const figures = byId("unit-figures");
  figures.replaceChildren();
  const append = (element) => {
    signal.throwIfAborted();
    figures.append(element);
  };
  const maps = await session.maps(output);
  if (layer.kind !== "dense") append(figure(drawSprite(maps, number), mapCaption(maps, number)));
  const conv = convBehind(layer, model);
  if (conv && !conv.locally_connected) append(await filterFigure(model, conv, number, signal));
  append(optimisedFigure(output, number, signal));
  if (!model.has_training_images) {
    return "This server has no training images, from which to say what excites it most.";
  }
  const query = { layer: output, unit: number };
  const { patches, images } = await request("exciting", { query, signal });
  append(patchFigure(patches.filter(({ activation }) => activation > 0)));
  return `Out of ${count(images)} training images.`;
}

function mapCaption({ largest, means }, number) {
  if (largest[number] <= 0) return "Its map: silent for this photograph.";
  const [strongest, mean] = [largest[number].toPrecision(3), means[number].toPrecision(3)];
  return `Its map of your photograph: strongest ${strongest}, mean ${mean}.`;
}

async function filterFigure({ spec }, conv, number, signal) {
  const query = { layer: conv.name, unit: number };
  const filter = await loadSprites(await request("filters", { query, signal }));
  const size = `${conv.kernel_size}×${conv.kernel_size}`;
  if (conv === spec.convs[0]) {
    return figure(drawSprite(filter, number), `Its filter, ${size} pixels of three colours.`);
  }
  const words = `Its filter: ${size} weights for each of ${filter.filters} maps before it.`;
  return figure(drawSpaced(filter, filter.filters), `${words} Grey is nought.`, "wide");
}

function patchFigure(patches) {
  const pictures = patches.map((patch) => html("img", { src: patch.image, alt: patch.class }));
  return html("figure", { class: "patches wide" }, html("div", {}, ...pictures),
    html("figcaption", {}, patches.length
      ? "The parts of training images that excite it most."
      : "No training image excites it."));
}

/** An image is made for the unit when it is asked for: that takes the server some seconds. */
function optimisedFigure(layer, unit, signal) {
  const caption = html("figcaption", { role: "status" });
  const button = html("button", { type: "button" }, "Make the image that excites it most");
  const place = html("figure", { class: "optimised" }, button, caption);
  button.addEventListener("click", async () => {
    button.disabled = true;
    caption.textContent = "Making it …";
    try {
      const found = await request("optimised", { query: { layer, unit }, signal });
      const words = `Made to excite it most: ${found.activation.toPrecision(3)}.`;
      button.replaceWith(html("img", { src: found.image, alt: "" }));
      caption.textContent = words;
    } catch (error) {
      if (error.name !== "AbortError") caption.textContent = error.message;
      button.disabled = false;
    }
  });
  return place;
}

function figure(canvas, words, kind) {
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words);
  const caption = html("figcaption", { "aria-hidden": "true" }, words);
  return html("figure", { class: kind }, canvas, caption);
}
