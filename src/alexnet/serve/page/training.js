/** The training of this run: its curves, its speed, the best so far; live while it goes on. */

import { request } from "./api.js";
import { byId, describe, html, latestOnly, showNote, svg } from "./dom.js";
import { count, percent } from "./text.js";

const LIVE = 3; // seconds between two looks at a run that goes on
const STILL = 30; // and at one that does not
const MARGIN = { left: 52, right: 12, top: 12, bottom: 36 }; // of a chart
const HEIGHT = 250;
const MOST = 300; // points drawn of a line; more are averaged

export function start(session) {
  const note = byId("training-note");
  if (!session.model.has_run_curves) {
    showNote(note, "This network came without the record of its training.");
    return;
  }
  const charts = makeCharts();
  byId("training-charts").append(...charts.map(({ figure }) => figure));
  const seen = { lines: [], step: 0 };
  const run = latestOnly(byId("training"), note);
  let timer;

  const look = () => run(async (signal) => {
    clearTimeout(timer);
    if (session.panel !== "training" || document.hidden) return "";
    timer = setTimeout(look, 1000 * STILL); // also where this look fails
    const news = await request("run", { query: { after: seen.step }, signal });
    if (news.step < seen.step) Object.assign(seen, { lines: [], step: 0 }); // begun anew
    else take(news, seen);
    describeRun(news, seen.lines);
    drawCurves(seen.lines, charts);
    clearTimeout(timer);
    timer = setTimeout(look, 1000 * (news.live ? LIVE : STILL));
    return news.live ? "" : "Nothing trains this run now.";
  }, note.textContent);

  session.addEventListener("panel", look);
  document.addEventListener("visibilitychange", look);
}

/** Add what is new; the validation of the last step seen comes along every time. */
function take(news, seen) {
  const isKnown = seen.lines.some((line) => line.step === seen.step && "val_top1" in line);
  seen.lines.push(...news.lines.filter((line) => line.step > seen.step || !isKnown));
  seen.step = news.lines.at(-1)?.step ?? seen.step;
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

function makeCharts() {
  const captions = [
    ["Training loss"],
    ["Top-1 error: ", html("span", { class: "was" }), " of training batches, ",
      html("span", { class: "now" }), " of watched images"],
  ];
  return captions.map((caption) => {
    const drawing = svg("svg", { class: "chart", role: "img" });
    return { drawing, figure: html("figure", {}, html("figcaption", {}, ...caption), drawing) };
  });
}

function drawCurves(lines, [loss, error]) {
  const points = (name, from = (value) => value) => lines
    .filter((line) => line[name] !== undefined && line[name] !== null)
    .map((line) => [line.epoch, from(line[name])]);
  const wrong = (share) => 1 - share;
  const losses = points("loss");
  const errors = points("val_top1", wrong);
  drawChart(loss.drawing, [{ kind: "now", points: losses }], { x: "epoch", y: "nats" });
  drawChart(error.drawing, [
    { kind: "was", points: points("train_top1", wrong) },
    { kind: "now", points: errors, dots: true },
  ], { x: "epoch", y: "top-1 error", low: 0, high: 1 });
  const span = (line, form) =>
    line.length ? `from ${form(line[0][1])} to ${form(line.at(-1)[1])}` : "nothing yet";
  loss.drawing.setAttribute("aria-label",
    `Training loss: ${span(losses, (value) => value.toFixed(2))} nats.`);
  error.drawing.setAttribute("aria-label",
    `Top-1 error of the watched images: ${span(errors, percent)}.`);
}

/**
 * Draw lines into an SVG of the width that it has on the page.
 *
 * @param lines [{kind, points: [[x, y], …], dots}], `kind` is its class
 * @param axes {x, y}: what they are called, and {low, high} where y has fixed ends
 */
function drawChart(drawing, lines, { x, y, low, high }) {
  const width = Math.max(260, drawing.clientWidth || 480);
  const all = lines.flatMap(({ points }) => points);
  const across = ticks(0, Math.max(1, ...all.map(([at]) => at)));
  const up = ticks(low ?? 0, high ?? Math.max(1e-9, ...all.map(([, value]) => value)));
  const [left, right] = [MARGIN.left, width - MARGIN.right];
  const place = {
    x: scale(0, across.at(-1), left, right),
    y: scale(up[0], up.at(-1), HEIGHT - MARGIN.bottom, MARGIN.top),
  };
  const shown = (value) => String(Number(value.toPrecision(6)));
  drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  drawing.replaceChildren(
    ...up.flatMap((value) => [
      svg("line", { class: "rule", x1: left, x2: right, y1: place.y(value), y2: place.y(value) }),
      text(left - 8, place.y(value) + 5, shown(value), "end"),
    ]),
    ...across.map((value) =>
      text(place.x(value), HEIGHT - MARGIN.bottom + 18, shown(value), "middle")),
    text(right, HEIGHT - 2, x, "end"),
    text(left + 6, MARGIN.top + 14, y, "start"),
    ...lines.flatMap((line) => drawLine(line, place)),
  );
}

const scale = (from, to, start, end) => (value) =>
  start + ((value - from) / (to - from)) * (end - start);

const text = (x, y, words, anchor) => svg("text", { x, y, "text-anchor": anchor }, words);

function drawLine({ kind, points, dots = false }, place) {
  const at = average(points).map(([x, y]) => [place.x(x).toFixed(1), place.y(y).toFixed(1)]);
  if (!at.length) return [];
  const marks = dots || at.length === 1
    ? at.map(([cx, cy]) => svg("circle", { class: kind, cx, cy, r: 3.5 })) : [];
  return [svg("polyline", { class: kind, points: at.join(" ") }), ...marks];
}

/** Return at most `MOST` points, each the mean of its neighbours. */
function average(points) {
  const size = Math.ceil(points.length / MOST);
  if (size < 2) return points;
  const mean = (group, axis) => group.reduce((sum, point) => sum + point[axis], 0) / group.length;
  return Array.from({ length: Math.ceil(points.length / size) }, (_, n) => {
    const group = points.slice(n * size, (n + 1) * size);
    return [mean(group, 0), mean(group, 1)];
  });
}

/** Return round numbers that enclose two others: 0, 0.5, 1, 1.5. */
function ticks(low, high) {
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((size) => size >= rough);
  const many = Math.ceil((high - low) / step - 1e-9);
  return Array.from({ length: many + 1 }, (_, n) => low + n * step);
}
