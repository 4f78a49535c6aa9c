/** The panels that show one answer: look-alikes, and the first layer's filters. */

import { request } from "./api.js";
import { byId, html, latestOnly } from "./dom.js";
import { drawSpaced, loadSprites } from "./sprites.js";
import { count, spacing } from "./text.js";

export function start(session) {
  startNeighbours(session);
  startFilters(session);
}

/** The training images that the network finds most like the photograph. */
function startNeighbours(session) {
  const list = byId("neighbours-list");
  const run = latestOnly(byId("neighbours"), byId("neighbours-note"));
  session.whenSeen("neighbours", () => run(async (signal) => {
    list.replaceChildren();
    if (!session.model.has_training_images) {
      return "This server has no training images: it was started where they cannot be read.";
    }
    if (!session.photograph) return "They appear here when there is a photograph.";
    const found = await request("neighbours", { photograph: session.photograph, signal });
    list.replaceChildren(...found.neighbours.map(({ image, class: name, distance }) =>
      html("li", {},
        html("img", { src: image, alt: `A training image of the class ${name}` }),
        html("b", {}, name),
        html("small", { class: "quiet" }, `distance ${distance.toPrecision(3)}`))));
    return (
      `Out of ${count(found.images)} training images, by the Euclidean distance of what ` +
      `${found.layer} gives for them. Small distances are great likenesses.`
    );
  }, "Comparing with the training images; soon after its start the server still looks at them …"));
}

/** The first layer's filters, as the paper's Figure 3 shows them. */
function startFilters(session) {
  const { spec } = session.model;
  const [conv] = spec.convs;
  const run = latestOnly(byId("filters"), byId("filters-note"));
  const { out_channels: filters, kernel_size: size } = conv;
  byId("filters-lead").textContent =
    `${filters} filters of ${size}×${size}×${spec.in_channels}, ` +
    `${spacing(conv.stride)}: all that the network knows of pixels. As in Figure 3 of the paper.`;
  byId("filters-words").textContent = spec.towers === 2
    ? "The upper half belongs to one tower, the lower half to the other. In 2012 one learned " +
      "edges without colour and the other colours."
    : `The network “${spec.name}” has one tower, so edges and colours are mixed. Noise instead ` +
      "of pattern is a sign of a short training.";
  session.whenSeen("filters", () => run(async (signal) => {
    const found = await request("filters", { query: { layer: conv.name }, signal });
    const picture = drawSpaced(await loadSprites(found), found.filters, byId("filters-picture"));
    const words = `The ${found.filters} filters of ${conv.name}, ${found.columns} in a row.`;
    picture.setAttribute("aria-label", words);
    byId("filters-figure").hidden = false;
  }, "Asking for the filters …"), () => [conv]);
}
