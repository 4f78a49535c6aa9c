/** Which part of the photograph decides: probabilities as a grey square covers each part. */

import { request } from "./api.js";
import { byId, html, latestOnly, showBlob, svg } from "./dom.js";
import { outline } from "./photograph.js";
import { percent } from "./text.js";

export function start(session) {
  const select = byId("decides-class");
  const run = latestOnly(byId("decides"), byId("decides-note"));
  const update = () =>
    run((signal) => show(session, select.value, signal), "Covering the photograph, part by part …");

  session.addEventListener("answer", () => offerClasses(session, select));
  session.addEventListener("photograph", () => {
    select.replaceChildren();
    byId("decides-figure").hidden = true;
  });
  session.whenSeen("decides", update);
  select.addEventListener("change", update);
}

/** The classes that the network finds most probable can be asked about. */
function offerClasses(session, select) {
  const [ranked] = session.answer.predictions;
  const { value } = select;
  select.disabled = false;
  select.replaceChildren(
    ...ranked.map(({ name, label }) => html("option", { value: label }, name)),
  );
  if (ranked.some(({ label }) => label === value)) select.value = value;
}

async function show({ photograph }, label, signal) {
  if (!photograph) return "The map appears here when there is a photograph.";
  const found = await request("occlusion", { query: label ? { label } : {}, photograph, signal });
  const picture = byId("decides-picture");
  showBlob(picture, photograph);
  await picture.decode();
  byId("decides-figure").hidden = false;
  drawGrid(byId("decides-grid"), found, [picture.naturalWidth, picture.naturalHeight]);
  byId("decides-words").textContent = inWords(found);
}

/** Lay the loss of probability over the photograph: the more is lost, the stronger the colour. */
function drawGrid(drawing, found, [width, height]) {
  const [left, top, right] = found.box;
  const pixel = (right - left) / found.view; // of the view, in pixels of the photograph
  const most = Math.max(1e-6, ...found.grid.flat().map((share) => found.probability - share));
  const cells = found.grid.flatMap((row, y) => row.map((share, x) => {
    const lost = Math.max(0, found.probability - share) / most;
    const middle = (place) => (place * found.stride + found.size / 2 - found.stride / 2) * pixel;
    return svg("rect", {
      x: left + middle(x), y: top + middle(y),
      width: found.stride * pixel, height: found.stride * pixel,
      "fill-opacity": (0.75 * lost).toFixed(3),
    });
  }));
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.replaceChildren(...cells, svg("path", { d: outline(found.box) }));
  drawing.setAttribute("aria-label", inWords(found));
}

/** Say where the probability falls most. */
function inWords({ class: name, probability, grid }) {
  const shares = grid.flat();
  const lowest = Math.min(...shares);
  const at = shares.indexOf(lowest);
  const row = Math.floor(at / grid[0].length) / Math.max(1, grid.length - 1);
  const column = (at % grid[0].length) / Math.max(1, grid[0].length - 1);
  const down = ["top", "middle", "bottom"][third(row)];
  const across = ["left", "centre", "right"][third(column)];
  return (
    `${name}: ${percent(probability)} with nothing covered, ${percent(lowest)} with the ` +
    `${down} ${across} covered. The stronger the colour, the more it decides.`
  );
}

const third = (share) => Math.min(2, Math.floor(3 * share));
