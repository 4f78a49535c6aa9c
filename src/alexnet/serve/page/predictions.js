/** The answer beside the photograph: five bars, from one view or ten, and the crop behind them. */

import { ask } from "./api.js";
import { drawBars, drawEmpty, spoken } from "./bars.js";
import { byId } from "./dom.js";
import { worker } from "./work.js";

export function start(session) {
  const list = byId("bars");
  const run = worker(list, byId("answer-note"));
  const empty = () => drawEmpty(list, Math.min(5, session.model.classes.count));

  const update = () => {
    const { photograph } = session;
    if (!photograph) return;
    run(async (signal) => {
      const views = Number(document.querySelector("input[name=views]:checked").value);
      const answer = await ask("predict", { query: { top: 5, views }, photograph, signal });
      const [ranked] = answer.predictions;
      session.answered(answer);
      drawBars(list, ranked);
      byId("spoken").textContent = spoken(ranked);
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
