/** The training images that the network finds most like the photograph. */

import { ask } from "./api.js";
import { byId, html } from "./dom.js";
import { count } from "./words.js";
import { worker } from "./work.js";

export function start(session) {
  const list = byId("neighbours-list");
  const run = worker(byId("neighbours"), byId("neighbours-note"));
  session.whenSeen("neighbours", () => run(async (signal) => {
    list.replaceChildren();
    if (!session.model.has_training_images) {
      return "This server has no training images: it was started where they cannot be read.";
    }
    if (!session.photograph) return "They appear here when there is a photograph.";
    const found = await ask("neighbours", { photograph: session.photograph, signal });
    list.replaceChildren(...found.neighbours.map(card));
    return (
      `Out of ${count(found.images)} training images, by the Euclidean distance of what ` +
      `${found.layer} gives for them. Small distances are great likenesses.`
    );
  }, "Comparing with the training images; soon after its start the server still looks at them …"));
}

function card({ image, class: name, distance }) {
  return html("li", {},
    html("img", { src: image, alt: `A training image of the class ${name}` }),
    html("b", {}, name),
    html("small", { class: "quiet" }, `distance ${distance.toPrecision(3)}`),
  );
}
