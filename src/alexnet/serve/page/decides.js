/** Which part of the photograph decides: as a grey square covers each part, or by other methods. */

import { request } from "./api.js";
import { byId, html, latestOnly, showBlob, svg } from "./dom.js";
import { outline } from "./photograph.js";
import { percent } from "./text.js";

const COVERING = "covering";

/** What each method does, and its trap; the server names those that it has. */
const METHODS = {
  [COVERING]: "A grey square is moved over the photograph. Where the probability falls most, the " +
    "network was looking.",
  saliency: "How much the class’s score changes with each pixel: the gradient. It is noisy.",
  smoothgrad: "The mean gradient of noisy copies of the photograph, which is less noisy.",
  "integrated-gradients": "Gradients on the way from the mean image to the photograph: they sum " +
    "to the difference in score, and dark pixels count for little.",
  "guided-backprop": "Gradients of which only what is positive passes each ReLU. Sharp, but it " +
    "shows the photograph’s edges more than the class.",
  deconvolution: "Signals sent back through ReLUs by their own sign alone. It shows the " +
    "photograph’s edges more than the class.",
  "grad-cam": "The last convolution’s maps, weighed by how much they speak for the class. Coarse.",
  "guided-grad-cam": "Guided backpropagation where Grad-CAM is strong; its edges are the former’s.",
  layercam: "The last convolution’s maps, each place weighed by its own gradient. Coarse.",
  occlusion: "A square of the mean image is moved over the photograph; each pixel has the mean of " +
    "what is lost.",
  ablation: "Each of 49 pieces is covered by the mean image once.",
};

export function start(session) {
  const select = byId("decides-class");
  const methods = byId("decides-method");
  methods.append(...[COVERING, ...session.model.methods].map((name) =>
    html("option", { value: name }, name === COVERING ? "grey square" : name)));
  const run = latestOnly(byId("decides"), byId("decides-note"));
  const update = () => run(
    (signal) => show(session, select.value, methods.value, signal),
    methods.value === COVERING ? "Covering the photograph, part by part …" : "Asking what decides …",
  );

  session.addEventListener("answer", () => offerClasses(session, select));
  session.addEventListener("photograph", () => {
    select.replaceChildren();
    byId("decides-figure").hidden = true;
  });
  session.whenSeen("decides", update, () => [session.photograph, session.switches]);
  select.addEventListener("change", update);
  methods.addEventListener("change", update);
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

async function show({ photograph, switches }, label, method, signal) {
  byId("decides-lead").textContent = METHODS[method] ?? `By ${method}.`;
  if (!photograph) return "The map appears here when there is a photograph.";
  const chosen = { ...(label && { label }), ...(method !== COVERING && { method }) };
  const query = { ...chosen, ...switches.query };
  const path = method === COVERING ? "occlusion" : "explain";
  const found = await request(path, { query, photograph, signal });
  const picture = byId("decides-picture");
  showBlob(picture, photograph);
  await picture.decode();
  byId("decides-figure").hidden = false;
  const words = method === COVERING ? inWords(found) : explainedInWords(found);
  drawGrid(byId("decides-grid"), found, [picture.naturalWidth, picture.naturalHeight], words);
  byId("decides-words").textContent = words;
  if (switches.names.length) return `Changed under “What if”: ${switches.names.join("; ")}.`;
}

/** How much each cell matters: of covering, what is lost; of other methods, what speaks for it. */
const weights = ({ method, probability, grid }) =>
  grid.map((row) => row.map((value) => Math.max(0, method ? value : probability - value)));

/** Lay a map over the photograph: the more a part matters, the stronger the colour. */
function drawGrid(drawing, found, [width, height], words) {
  const [left, top, right] = found.box;
  const pixel = (right - left) / found.view; // of the view, in pixels of the photograph
  const { size, stride = size } = found;
  const matters = weights(found);
  const most = Math.max(1e-30, ...matters.flat());
  const cells = matters.flatMap((row, y) => row.map((weight, x) => {
    const middle = (place) => (place * stride + size / 2 - stride / 2) * pixel;
    return svg("rect", {
      x: left + middle(x), y: top + middle(y),
      width: stride * pixel, height: stride * pixel,
      "fill-opacity": (0.75 * weight / most).toFixed(3),
    });
  }));
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  drawing.replaceChildren(...cells, svg("path", { d: outline(found.box) }));
  drawing.setAttribute("aria-label", words);
}

/** Say where the probability falls most. */
function inWords({ class: name, probability, grid }) {
  const lowest = Math.min(...grid.flat());
  return (
    `${name}: ${percent(probability)} with nothing covered, ${percent(lowest)} with the ` +
    `${placeOf(grid, lowest)} covered. The stronger the colour, the more it decides.`
  );
}

function explainedInWords({ class: name, probability, grid }) {
  const strongest = placeOf(grid, Math.max(...grid.flat()));
  return (
    `${name}: ${percent(probability)}. The ${strongest} speaks for it most. The stronger the ` +
    "colour, the more it does."
  );
}

/** Name the part of the view that a value of the grid is in. */
function placeOf(grid, value) {
  const at = grid.flat().indexOf(value);
  const row = Math.floor(at / grid[0].length) / Math.max(1, grid.length - 1);
  const column = (at % grid[0].length) / Math.max(1, grid[0].length - 1);
  const down = ["top", "middle", "bottom"][third(row)];
  const across = ["left", "centre", "right"][third(column)];
  return `${down} ${across}`;
}

const third = (share) => Math.min(2, Math.floor(3 * share));
