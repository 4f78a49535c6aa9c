/** The first layer's filters, as the paper's Figure 3 shows them. */

import { ask } from "./api.js";
import { byId } from "./dom.js";
import { sheet, spaced } from "./sheets.js";
import { apart } from "./words.js";
import { worker } from "./work.js";

export function start(session) {
  const { spec } = session.model;
  const [conv] = spec.convs;
  const run = worker(byId("filters"), byId("filters-note"));
  byId("filters-lead").textContent =
    `${conv.out_channels} filters of ${conv.kernel_size}×${conv.kernel_size}×${spec.in_channels}, ` +
    `${apart(conv.stride)}: all that the network knows of pixels. As in Figure 3 of the paper.`;
  session.whenFirstSeen("filters", () => run(async (signal) => {
    const found = await ask("filters", { query: { layer: conv.name }, signal });
    const picture = spaced(await sheet(found), found.filters, byId("filters-picture"));
    const words = `The ${found.filters} filters of ${conv.name}, ${found.columns} in a row.`;
    picture.setAttribute("aria-label", words);
    byId("filters-figure").hidden = false;
    byId("filters-words").textContent = explained(spec);
  }, "Asking for the filters …"));
}

function explained({ towers, name }) {
  return towers === 2
    ? "The upper half belongs to one tower, the lower half to the other. In 2012 one learned " +
      "edges without colour and the other colours."
    : `The network “${name}” has one tower, so edges and colours are mixed. Noise instead of ` +
      "pattern is a sign of a short training.";
}
