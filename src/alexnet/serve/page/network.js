/** The network: its drawing, a button for each layer, and the photograph on its way through. */

import { clearFaces, draw, drawFaces } from "./drawing.js";
import { byId, html, radio } from "./dom.js";
import { drawSheet, drawSprite } from "./sprites.js";
import { count, roughly } from "./text.js";

export function start(session) {
  const { model } = session;
  byId("network-lead").textContent = lead(model);
  draw(byId("drawing"), model, (row) => choose(row.name));
  const list = byId("layers");
  list.style.setProperty("--columns", model.layers.length);
  list.append(...model.layers.map(layerButton));
  list.addEventListener("change", (event) => select(session, event.target.value));
  session.addEventListener("photograph", () => pass(session));
  session.addEventListener("answer", () => drawInput(session));
  choose(model.layers[1].name);
}

function lead({ spec, layers, towers, parameters, macs }) {
  const weighted = layers.filter((row) => row.parameters);
  const halves = towers === 2 ? " in two towers" : "";
  return (
    `${weighted.length} layers with weights${halves}, ${count(parameters)} parameters, ` +
    `${roughly(macs)} multiplications for a photograph of ${spec.image_size}×${spec.image_size}.`
  );
}

function layerButton({ name, kind, channels, size }) {
  const isDense = kind === "dense";
  const label = isDense
    ? `${name}, ${count(channels)} units` : `${name}, ${channels} maps of ${size} by ${size}`;
  const thumb = html("canvas", { class: "thumb", width: 1, height: 1, "data-layer": name });
  const shape = html("small", {}, isDense ? count(channels) : `${channels} × ${size}²`);
  return radio("layer", name, [thumb, html("b", {}, name), shape], { label });
}

function choose(name) {
  const input = byId("layers").querySelector(`input[value="${CSS.escape(name)}"]`);
  input.checked = true;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

function select(session, name) {
  const index = session.model.layers.findIndex((row) => row.name === name);
  byId("drawing").querySelectorAll(".box").forEach((box, place) => {
    box.classList.toggle("chosen", place === index);
  });
  session.setLayer(name);
}

/** Fetch the layers' maps one after the other, so that the photograph is seen to pass. */
async function pass(session) {
  const thumbs = [...byId("layers").querySelectorAll(".thumb")];
  for (const thumb of thumbs) {
    thumb.width = 1; // which empties it
    thumb.classList.remove("there");
  }
  clearFaces(byId("drawing"));
  const { photograph } = session;
  for (const thumb of thumbs.slice(1)) {
    const row = session.model.layers.find((one) => one.name === thumb.dataset.layer);
    let maps;
    try {
      maps = await session.maps(session.shownOutput(row));
    } catch {
      return; // the panel of the chosen layer says why
    }
    if (session.photograph !== photograph) return;
    drawStrongest(thumb, maps);
  }
}

/** Draw the map with the strongest activation; of a fully-connected layer, all its units. */
function drawStrongest(thumb, maps) {
  if (maps.size === 1) drawSheet(maps, thumb);
  else drawSprite(maps, maps.largest.indexOf(Math.max(...maps.largest)), thumb);
  showArrived(thumb);
}

/** The input's own picture is the view that the network saw. */
async function drawInput(session) {
  const { answer } = session;
  const picture = byId("picture");
  try {
    await picture.decode();
  } catch {
    return; // the network can read it, this browser cannot
  }
  if (session.answer !== answer) return;
  const thumb = byId("layers").querySelector(".thumb");
  const [left, top, right, bottom] = answer.crops[0].view;
  const side = session.model.layers[0].size;
  [thumb.width, thumb.height] = [side, side];
  const pen = thumb.getContext("2d");
  pen.drawImage(picture, left, top, right - left, bottom - top, 0, 0, side, side);
  showArrived(thumb);
}

/** What a layer made of the photograph is shown on its button and in the drawing. */
function showArrived(thumb) {
  thumb.classList.add("there");
  const index = [...byId("layers").querySelectorAll(".thumb")].indexOf(thumb);
  drawFaces(byId("drawing"), index, thumb.toDataURL());
}
