/**
 * The network drawn to scale, in the spirit of the paper's Figure 2. Pure geometry: from the rows
 * and the spec that the server sends to one SVG.
 *
 * A convolutional layer is a box: its height and depth are the pixels of its maps, its thickness
 * along the row is their number. A fully-connected layer is a bar of its units. Two towers lie one
 * above the other. The small frames are the windows of the next layer's filters.
 */

import { svg } from "./dom.js";
import { convBehind } from "./text.js";

const WIDTH = 760;
const WIDER = 5 / 3; // the input's column is wider than the others by this
const HEIGHT = 270;
const ROOM = 250; // what the tallest layer takes
const TOWERS = [0.27, 0.73]; // the height at which each of two towers runs
const LEAN = 0.42; // a pixel of depth is drawn this far to the right ...
const RISE = 0.2; // ... and this far up
const THICKEST = 36; // drawn for the layer with the most maps
const THINNEST = 2; // so that ten units can be seen

/** Fill `drawing` with the network; `choose` is called with the row that is clicked. */
export function draw(drawing, model, choose) {
  const scale = scales(model);
  const columns = model.layers.map((row, index) => column(row, index, model, scale));
  drawing.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  drawing.replaceChildren(
    ...columns.map((shapes, index) => {
      const [x, end] = [scale.start(index), scale.start(index + 1)];
      const area = svg("rect", { class: "area", x, y: 0, width: end - x, height: HEIGHT });
      const group = svg("g", { class: `box ${model.layers[index].kind}` }, area);
      group.append(...shapes.map(solid));
      group.addEventListener("click", () => choose(model.layers[index]));
      return group;
    }),
    svg("g", { class: "joins" }, ...joins(model, columns, scale)),
  );
}

/** Lay a picture on the faces of a layer's box, as they lie; two towers show the same. */
export function drawFaces(drawing, index, address) {
  const box = drawing.children[index];
  clearFaces(box);
  for (const face of box.querySelectorAll(".face")) {
    const [{ x, y }, along, , down] = face.points;
    const place = `matrix(${along.x - x} ${along.y - y} 0 ${down.y - y} ${x} ${y})`;
    const size = { width: 1, height: 1, preserveAspectRatio: "none" };
    face.before(svg("image", { href: address, transform: place, ...size }));
  }
}

/** Take the pictures off the faces again. */
export function clearFaces(drawing) {
  for (const image of drawing.querySelectorAll("image")) image.remove();
}

/** Pixels, maps and units each have one scale, the same for all layers: the largest that fits. */
function scales({ layers, spec, towers }) {
  const boxes = layers.filter((row) => row.kind !== "dense");
  const most = (rows, key) => Math.max(...rows.map((row) => row[key]));
  const each = WIDTH / (layers.length - 1 + WIDER);
  const map = THICKEST / most(boxes, "channels");
  const height = ROOM / (1 + RISE); // what leans back stands as much higher
  const fits = boxes.slice(1).map((row) => (each - 6 - map * row.channels) / (LEAN * row.size));
  const inTower = towers === 2 ? 1 / 2.2 : 1; // of the room; a tower has half of the units
  const bars = layers.filter((row) => row.kind === "dense").map((row, index, all) =>
    index === all.length - 1 ? row.channels : row.channels / towers / inTower);
  return {
    map,
    pixel: Math.min(
      height / spec.image_size, (inTower * height) / most(boxes.slice(1), "size"), ...fits,
    ),
    unit: ROOM / Math.max(...bars),
    start: (index) => (index ? each * (index - 1 + WIDER) : 0), // of a layer's column
  };
}

/** Return the shapes of a layer: one, or one a tower. Each knows its corners. */
function column(row, index, { towers, layers }, scale) {
  const split = towers === 2 && row.kind !== "input" && index < layers.length - 1;
  const middle = (scale.start(index) + scale.start(index + 1)) / 2;
  return (split ? TOWERS : [0.5]).map((height) => {
    const maps = split ? row.channels / 2 : row.channels;
    return row.kind === "dense"
      ? bar(middle, HEIGHT * height, Math.max(THINNEST, maps * scale.unit))
      : box(middle, HEIGHT * height, row.size * scale.pixel, Math.max(THINNEST, maps * scale.map));
  });
}

function box(x, y, side, thick) {
  const [lean, rise] = [side * LEAN, side * RISE];
  const left = x - (thick + lean) / 2;
  const top = y - (side - rise) / 2;
  const right = left + thick;
  return {
    x: left, // where lines from before arrive
    y: top + side / 2,
    end: [right + lean / 2, y], // the middle of the face that the next layer looks at
    high: y - side / 2,
    low: y + side / 2,
    faces: {
      side: [[left, top], [right, top], [right, top + side], [left, top + side]],
      top: [[left, top], [left + lean, top - rise], [right + lean, top - rise], [right, top]],
      face: [[right, top], [right + lean, top - rise], [right + lean, top + side - rise],
        [right, top + side]],
    },
  };
}

function bar(x, y, length) {
  const [left, right, top, bottom] = [x - 7, x + 7, y - length / 2, y + length / 2];
  return {
    x: left, y, end: [right, y], high: top, low: bottom,
    faces: { face: [[left, top], [right, top], [right, bottom], [left, bottom]] },
  };
}

function solid({ faces }) {
  return svg("g", {}, ...Object.entries(faces).map(([name, corners]) =>
    svg("polygon", { class: name, points: points(corners) })));
}

const points = (corners) => corners.map((corner) => corner.map((n) => n.toFixed(1))).join(" ");

/** Return the lines from each layer to the next, and the filters' windows that they start from. */
function joins(model, columns, scale) {
  return model.layers.slice(1).flatMap((row, index) => {
    const [from, to] = [columns[index], columns[index + 1]];
    const conv = convBehind(row, model);
    const window = (row.kind === "pool" ? conv.pool : conv)?.kernel_size; // none: it sees all
    return to.flatMap((target, tower) => {
      const own = from.length === to.length &&
        (model.towers === 1 || row.kind === "pool" || conv?.grouped);
      const sources = own ? [from[tower]] : from;
      return sources.flatMap((source) =>
        window ? sight(source, target, window * scale.pixel) : fan(source, target));
    });
  });
}

/** A window on the face of one box, and the lines from it to where its result lies in the next. */
function sight(source, target, side) {
  const [x, y] = source.end;
  const [lean, rise] = [side * LEAN, side * RISE];
  const corners = [
    [x - lean / 2, y - side / 2 + rise / 2], [x + lean / 2, y - side / 2 - rise / 2],
    [x + lean / 2, y + side / 2 - rise / 2], [x - lean / 2, y + side / 2 + rise / 2],
  ];
  return [
    svg("polygon", { class: "window", points: points(corners) }),
    line(corners[1], [target.x, target.y]),
    line(corners[2], [target.x, target.y]),
  ];
}

/** All of one layer is seen by all of the next. */
function fan(source, target) {
  const x = source.end[0];
  return [
    line([x, source.high], [target.x, target.high]),
    line([x, source.low], [target.x, target.low]),
  ];
}

function line([x1, y1], [x2, y2]) {
  return svg("line", { x1, y1, x2, y2 });
}
