/** The answer beside the photograph: classes and their probabilities as bars. */

import { request } from "./api.js";
import { byId, html, latestOnly } from "./dom.js";
import { percent } from "./text.js";

export function start(session) {
  const list = byId("bars");
  const run = latestOnly(list, byId("answer-note"));
  const empty = () => drawEmptyBars(list, session.model);

  const update = () => {
    const { photograph } = session;
    if (!photograph) return;
    run(async (signal) => {
      const views = Number(document.querySelector("input[name=views]:checked").value);
      const answer = await request("predict", { query: { top: 5, views }, photograph, signal });
      const [ranked] = answer.predictions;
      session.setAnswer(answer);
      drawBars(list, ranked);
      byId("spoken").textContent = speak(ranked);
      return `Answered in ${Math.round(answer.milliseconds)} ms.`;
    });
  };
  session.addEventListener("photograph", () => {
    empty(); // so that no answer stands beside a photograph that it does not belong to
    update();
  });
  byId("views").addEventListener("change", update);
  empty();
}

/**
 * Draw the most probable classes.
 *
 * @param list an <ol>
 * @param ranked [{name, label, probability}], the most probable first
 * @param before an answer of the same kind, shown beside each as it was
 */
export function drawBars(list, ranked, before) {
  const was = new Map(before?.map((one) => [one.label, one.probability]));
  list.replaceChildren(...ranked.map((one) => bar(one, was.get(one.label), Boolean(before))));
}

/** Draw as many empty rows as there will be classes: nothing jumps when they come. */
export function drawEmptyBars(list, { classes }) {
  list.replaceChildren(
    ...Array.from({ length: Math.min(5, classes.count) }, () =>
      html("li", { class: "empty", "aria-hidden": "true" }, html("span", { class: "track" })),
    ),
  );
}

function bar({ name, label, probability }, was, isCompared) {
  const track = html("span", { class: "track" });
  if (was !== undefined) track.append(stretched("was", was));
  track.append(stretched("now", probability));
  const figures = html("span", { class: "share" }, percent(probability));
  if (isCompared) {
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

/** Return an answer as a sentence, for those who hear the page. */
export function speak(ranked) {
  const [first, ...others] = ranked.map((one) => `${one.name}, ${percent(one.probability)}`);
  return others.length ? `${first}. Then ${others.join("; ")}.` : `${first}.`;
}
