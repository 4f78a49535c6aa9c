/** The chosen layer: what it does, its arithmetic, and its maps of the photograph. */

import { byId, describe, html, radio } from "./dom.js";
import { ask } from "./api.js";
import { sheet, tile, whole } from "./sheets.js";
import { unitPane } from "./unit.js";
import { count, sentence, sideArithmetic } from "./words.js";
import { worker } from "./work.js";

export function start(session) {
  const panel = byId("layer");
  const run = worker(panel, byId("layer-note"));
  const showUnit = unitPane(session);
  const update = () =>
    run((signal) => showMaps(session, showUnit, signal), "Asking for the maps …");

  session.addEventListener("layer", () => {
    describeLayer(session);
    offerOutputs(session);
    update();
  });
  session.addEventListener("photograph", update);
  byId("outputs").addEventListener("change", update);
  byId("units").addEventListener("change", (event) => {
    showUnit(chosenOutput(), Number(event.target.value));
  });
}

function describeLayer({ model, layer }) {
  const { layers, spec } = model;
  const before = layers[layers.indexOf(layer) - 1];
  const arithmetic = layer.arithmetic.replaceAll("x", "×");
  byId("layer-title").textContent = layer.name;
  byId("layer-words").textContent = sentence(layer, before, spec);
  const facts = [
    [layer.kind === "dense" ? "Units" : "Size",
      layer.kind === "dense" ? count(layer.channels) : `${layer.channels} × ${layer.size} × ${layer.size}`],
    ["Side", before && sideArithmetic(layer, before, spec)],
    ["Parameters", layer.parameters && `${arithmetic} = ${count(layer.parameters)}`],
    ["Multiplications", layer.macs && count(layer.macs)],
  ];
  describe(byId("layer-facts"), facts.filter(([, value]) => value));
}

/** A convolution can be looked at before its activation, after it, after the norm. */
function offerOutputs(session) {
  const names = session.outputs(session.layer);
  const shown = names.length ? session.shownOutput(session.layer) : "";
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
  const filters = await firstFilters(session, signal);
  signal.throwIfAborted();
  if (layer.kind === "dense") units.append(...unitPicker(maps, (unit) => showUnit(output, unit)));
  else units.append(...Array.from({ length: layer.channels }, (_, n) => mapButton(n, maps, filters)));
  return layer.kind === "dense"
    ? "Each square is a unit, the brighter the stronger. Choose one by its number."
    : "White is strong, black is nothing. Choose a map to see what made it.";
}

/** The filters that see pixels can be shown as pixels, beside their maps; later ones cannot. */
async function firstFilters({ model, layer }, signal) {
  const [first] = model.spec.convs;
  if (layer.name !== first.name || !first.shared) return null;
  return sheet(await ask("filters", { query: { layer: first.name }, signal }));
}

function mapButton(number, maps, filters) {
  const children = [tile(maps, number)];
  if (filters) {
    const filter = tile(filters, number);
    filter.className = "filter";
    children.push(filter);
  }
  const silent = maps.largest[number] <= 0 ? ", silent" : "";
  return radio("unit", number, children, { label: `map ${number + 1}${silent}` });
}

/** Thousands of units have no button each: a picture of all of them, and a field for a number. */
function unitPicker(maps, show) {
  const field = html("input", { type: "number", min: 1, max: maps.maps, value: 1 });
  const picture = whole(maps);
  picture.className = "all-units";
  picture.setAttribute("aria-hidden", "true");
  picture.addEventListener("click", ({ offsetX, offsetY }) => {
    const [x, y] = [offsetX / picture.clientWidth, offsetY / picture.clientHeight];
    const rows = Math.ceil(maps.maps / maps.columns);
    const unit = Math.floor(y * rows) * maps.columns + Math.floor(x * maps.columns);
    if (unit >= maps.maps) return;
    field.value = unit + 1;
    show(unit);
  });
  field.addEventListener("change", (event) => {
    event.stopPropagation();
    if (field.reportValidity()) show(field.value - 1);
  });
  return [html("label", { class: "number" }, "Unit ", field), picture];
}
