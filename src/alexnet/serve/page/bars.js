/** Classes and their probabilities as bars; with a second answer, before and after. */

import { html } from "./dom.js";
import { percent } from "./words.js";

/**
 * Draw the most probable classes, as many rows as before a photograph came: nothing jumps.
 *
 * @param list an <ol>
 * @param ranked [{name, label, probability}], the most probable first
 * @param before an answer of the same kind, shown as outlines behind
 */
export function drawBars(list, ranked, before) {
  const was = new Map(before?.map((one) => [one.label, one.probability]));
  list.replaceChildren(...ranked.map((one) => bar(one, was.get(one.label), Boolean(before))));
}

/** Draw as many empty rows as there will be classes. */
export function drawEmpty(list, rows) {
  list.replaceChildren(
    ...Array.from({ length: rows }, () =>
      html("li", { class: "empty", "aria-hidden": "true" }, html("span", { class: "track" })),
    ),
  );
}

function bar({ name, label, probability }, was, compared) {
  const track = html("span", { class: "track" });
  if (was !== undefined) track.append(stretched("was", was));
  track.append(stretched("now", probability));
  const figures = html("span", { class: "share" }, percent(probability));
  if (compared) {
    const old = was === undefined ? "?" : percent(was);
    figures.prepend(html("span", { class: "quiet" }, `${old} → `));
  }
  const title = name === label ? name : `${name} (${label})`;
  return html("li", {}, html("span", { class: "name", title }, name), figures, track);
}

function stretched(kind, share) {
  const piece = html("span", { class: kind });
  piece.style.setProperty("--share", share);
  return piece;
}

/** Say an answer in a sentence, for those who hear the page. */
export function spoken(ranked) {
  const [first, ...others] = ranked.map((one) => `${one.name}, ${percent(one.probability)}`);
  return others.length ? `${first}. Then ${others.join("; ")}.` : `${first}.`;
}
