/** A small line chart. */

import { svg } from "./dom.js";

const MARGIN = { left: 52, right: 12, top: 12, bottom: 36 };
const HEIGHT = 250;
const MOST = 300; // points drawn of a line; more are averaged

/**
 * Draw lines into an SVG of the width that it has on the page.
 *
 * @param lines [{kind, points: [[x, y], …], dots}], `kind` is its class
 * @param axes {x, y}: what they are called, and {low, high} where y has fixed ends
 */
export function drawChart(drawing, lines, { x, y, low, high }) {
  const width = Math.max(260, drawing.clientWidth || 480);
  const all = lines.flatMap(({ points }) => points);
  const across = ticks(0, Math.max(1, ...all.map(([at]) => at)));
  const up = ticks(low ?? 0, high ?? Math.max(1e-9, ...all.map(([, value]) => value)));
  const place = {
    x: scale(0, across.at(-1), MARGIN.left, width - MARGIN.right),
    y: scale(up[0], up.at(-1), HEIGHT - MARGIN.bottom, MARGIN.top),
  };
  drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  drawing.replaceChildren(
    ...up.map((value) => grid(place.y(value), width, shown(value))),
    ...across.map((value) =>
      text(place.x(value), HEIGHT - MARGIN.bottom + 18, shown(value), "middle")),
    text(width - MARGIN.right, HEIGHT - 2, x, "end"),
    text(MARGIN.left + 6, MARGIN.top + 14, y, "start"),
    ...lines.flatMap((line) => drawn(line, place)),
  );
}

const scale = (from, to, start, end) => (value) =>
  start + ((value - from) / (to - from)) * (end - start);

const shown = (value) => String(Number(value.toPrecision(6)));

function grid(y, width, label) {
  const ends = { x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y };
  return svg("g", {}, svg("line", { class: "rule", ...ends }), text(MARGIN.left - 8, y + 5, label, "end"));
}

function text(x, y, words, anchor) {
  return svg("text", { x, y, "text-anchor": anchor }, words);
}

function drawn({ kind, points, dots = false }, place) {
  const at = averaged(points).map(([x, y]) => [place.x(x).toFixed(1), place.y(y).toFixed(1)]);
  if (!at.length) return [];
  const marks = dots || at.length === 1
    ? at.map(([cx, cy]) => svg("circle", { class: kind, cx, cy, r: 3.5 })) : [];
  return [svg("polyline", { class: kind, points: at.join(" ") }), ...marks];
}

/** Return at most `MOST` points, each the mean of its neighbours. */
function averaged(points) {
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
