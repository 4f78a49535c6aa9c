/** The training of this run: its curves, its speed, the best so far; live while it goes on. */

import { ask } from "./api.js";
import { drawChart } from "./chart.js";
import { byId, describe, html, svg } from "./dom.js";
import { count, percent } from "./words.js";
import { say, worker } from "./work.js";

const LIVE = 3; // seconds between two looks at a run that goes on
const STILL = 30; // and at one that does not

export function start(session) {
  const note = byId("training-note");
  if (!session.model.has_run_curves) {
    say(note, "This network came without the record of its training.");
    return;
  }
  const charts = [chart("Training loss"), chart("Error of the watched images")];
  byId("training-charts").append(...charts.map(({ figure }) => figure));
  const seen = { lines: [], step: 0 };
  const run = worker(byId("training"), note);
  let timer;

  const look = () => run(async (signal) => {
    clearTimeout(timer);
    if (session.panel !== "training" || document.hidden) return "";
    timer = setTimeout(look, 1000 * STILL); // also where this look fails
    const query = { after: seen.step };
    const news = await ask("run", { query, signal });
    if (news.step < seen.step) Object.assign(seen, { lines: [], step: 0 }); // begun anew
    else take(news, seen);
    showRun(news, seen.lines, charts);
    clearTimeout(timer);
    timer = setTimeout(look, 1000 * (news.live ? LIVE : STILL));
    return news.live ? "" : "Nothing trains this run now.";
  }, note.textContent);

  session.addEventListener("panel", look);
  document.addEventListener("visibilitychange", look);
}

/** Add what is new; the validation of the last step seen comes along every time. */
function take(news, seen) {
  const known = seen.lines.filter((line) => line.step === seen.step && "val_top1" in line).length;
  const fresh = news.lines.filter((line) => line.step > seen.step || !known);
  seen.lines.push(...fresh);
  seen.step = news.lines.at(-1)?.step ?? seen.step;
}

function chart(title) {
  const drawing = svg("svg", { class: "chart", role: "img", "aria-label": title });
  const figure = html("figure", {}, html("figcaption", {}, title), drawing);
  return { drawing, figure };
}

function showRun(news, lines, [loss, error]) {
  const points = (name, from = (value) => value) => lines
    .filter((line) => line[name] !== undefined && line[name] !== null)
    .map((line) => [line.epoch, from(line[name])]);
  const wrong = (share) => 1 - share;
  const losses = points("loss");
  drawChart(loss.drawing, [{ kind: "now", points: losses }], { x: "epoch", y: "nats" });
  const errors = [
    { kind: "was", points: points("train_top1", wrong) },
    { kind: "now", points: points("val_top1", wrong), dots: true },
  ];
  drawChart(error.drawing, errors, { x: "epoch", y: "top-1 error", low: 0, high: 1 });
  describeRun(news, lines);
  sayCharts([loss, error], losses, errors[1].points);
}

function describeRun(news, lines) {
  const last = lines.findLast((line) => line.loss !== undefined);
  const { best, images_per_second: speed, epochs } = news;
  describe(byId("training-facts"), [
    ["State", news.live ? "training now" : "at rest"],
    ["Step", count(news.step)],
    ["Epoch", last ? `${last.epoch.toFixed(1)} of ${epochs}` : "none"],
    ["Images a second", speed ? count(Math.round(speed)) : "none"],
    ["Learning rate", last ? String(Number(last.lr.toPrecision(3))) : "none"],
    ["Best error", best ? `${percent(1 - best.val_top1)} at step ${count(best.step)}` : "none"],
  ]);
}

function sayCharts([loss, error], losses, errors) {
  const span = (points, form) => points.length
    ? `from ${form(points[0][1])} to ${form(points.at(-1)[1])}` : "nothing yet";
  loss.drawing.setAttribute("aria-label",
    `Training loss: ${span(losses, (value) => value.toFixed(2))} nats.`);
  error.drawing.setAttribute("aria-label",
    `Top-1 error of the watched images: ${span(errors, percent)}.`);
  const captions = [
    ["Training loss"],
    ["Top-1 error: ", html("span", { class: "was" }), " of training batches, ",
      html("span", { class: "now" }), " of watched images"],
  ];
  [loss, error].forEach(({ figure }, n) =>
    figure.firstElementChild.replaceChildren(...captions[n]));
}
