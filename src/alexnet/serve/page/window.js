/** 224 or 227? The first layer's window, moved over a row of pixels to its right edge. */

import { byId, radio, svg } from "./dom.js";

const [KERNEL, STRIDE, PRINTED] = [11, 4, 55]; // of conv1, and the side of its maps (section 3.5)

/** The answers that are given: pixels of the image, zeros before and after them. */
const FORMS = [
  {
    name: "224", image: 224, before: 0, after: 0,
    verdict: "54 windows, not the 55 that the paper prints; one pixel on the right is never seen.",
  },
  {
    name: "224, 3 past the edge", image: 224, before: 0, after: 3,
    verdict:
      "55 windows. This is what the program of 2012 did: it counted the windows that it takes to " +
      "cover the image, and left out what lies past the edge, as if it were nought.",
  },
  {
    name: "224, 2 more on each side", image: 224, before: 2, after: 2,
    verdict: "55 windows as well, in other places. torchvision's AlexNet does it so.",
  },
  {
    name: "227", image: 227, before: 0, after: 0,
    verdict:
      "55 windows that fit to the pixel: (227 − 11) / 4 + 1 = 55. Caffe's networks take 227.",
  },
];

const ROW = { y: 30, height: 34 }; // the whole row of pixels
const LENS = { y: 112, height: 60, last: 229 }; // its right end, under a magnifying glass
const MARKS = { y: 206, height: 230 };
const SIDE = 16; // left free on both sides

export function start(session) {
  const slider = byId("window-slider");
  const forms = byId("window-forms");
  forms.append(...FORMS.map(({ name }, n) =>
    radio("form", n, [name], { checked: n === 0 })));
  const chosen = () => FORMS[forms.querySelector("input:checked").value];
  const update = () => show(chosen(), Number(slider.value));
  forms.addEventListener("change", () => {
    slider.max = positions(chosen());
    slider.value = slider.max; // the right edge is what it is about
    update();
  });
  slider.addEventListener("input", update);
  slider.max = positions(chosen());
  slider.value = slider.max;
  byId("window-here").textContent = here(session.model);
  session.addEventListener("panel", update); // its width is known when it is seen
  window.addEventListener("resize", update);
}

const positions = ({ image, before, after }) =>
  Math.floor((before + image + after - KERNEL) / STRIDE) + 1;

/** What the network of this server does. */
function here({ name, spec }) {
  const [{ kernel_size: kernel, stride, padding, asymmetric_padding: after }] = spec.convs;
  const more = padding ? `, ${padding} zeros on each side`
    : after ? `, ${after} zeros past the right and bottom edge` : "";
  return (
    `The network on this page, “${name}”, takes ${spec.image_size} pixels${more}, and its first ` +
    `windows are ${kernel}×${kernel}, ${stride} apart.`
  );
}

function show(form, position) {
  const first = 1 - form.before + STRIDE * (position - 1);
  const last = first + KERNEL - 1;
  const drawing = byId("window-drawing");
  const width = Math.max(280, drawing.clientWidth);
  byId("window-words").textContent = inWords(form, position, first, last);
  byId("window-verdict").textContent = form.verdict;
  drawing.setAttribute("viewBox", `0 0 ${width} ${MARKS.height}`);
  drawing.replaceChildren(
    ...wholeRow(form, first, width),
    ...lens(form, first, last, width),
    ...counted(form, position, width),
  );
}

function inWords(form, position, first, last) {
  const outside = Math.max(0, 1 - first) + Math.max(0, last - form.image);
  const past = outside ? ` ${outside} of them are outside the image.` : "";
  const left = form.image + form.after - last;
  const stuck = left > 0 && left < STRIDE
    ? ` ${left} pixel is left over: another step would need ${STRIDE}.` : "";
  const covered = `covers pixels ${first} to ${last}`;
  return `Window ${position} of ${positions(form)} ${covered}.${past}${stuck}`;
}

const rect = (kind, x, y, width, height) => svg("rect", { class: kind, x, y, width, height });

/** The whole row, from edge to edge, and the window on it. */
function wholeRow({ image, before, after }, first, width) {
  const { y, height } = ROW;
  const pixel = (width - 2 * SIDE) / 229; // from -1, where padding begins, to 227
  const cells = (kind, from, many, more = 0) =>
    rect(kind, SIDE + pixel * (from + 1), y - more, pixel * many, height + 2 * more);
  return [
    svg("text", { x: SIDE, y: y - 10 }, `A row of ${image} pixels`),
    cells("image", 1, image),
    ...(before ? [cells("zeros", 1 - before, before)] : []),
    ...(after ? [cells("zeros", image + 1, after)] : []),
    cells("sliding", first, KERNEL, 4),
  ];
}

/** The right edge, pixel by pixel; a narrow page shows fewer of them. */
function lens({ image, after }, first, last, width) {
  const { y, height } = LENS;
  const pixel = Math.min(40, Math.max(25, (width - 2 * SIDE) / 24));
  const from = LENS.last - Math.floor((width - 2 * SIDE) / pixel) + 1;
  const at = (n) => SIDE + pixel * (n - from);
  const cells = Array.from({ length: image + after - from + 1 }, (_, n) => from + n);
  const seen = Math.max(first, from);
  const sliding = pixel * (last - seen + 1);
  return [
    svg("text", { x: SIDE, y: y - 14 }, "Its right edge, magnified"),
    ...cells.flatMap((n) => [
      rect(n > image ? "zeros" : "image", at(n), y, pixel, height),
      svg("text", { class: "pixel", x: at(n) + pixel / 2, y: y + height / 2 + 4 },
        n > image ? "0" : String(n)),
    ]),
    ...(sliding > 0 ? [rect("sliding", at(seen), y - 5, sliding, height + 10)] : []),
  ];
}

/** A mark for each of the printed 55 positions: filled up to the window's, hollow where none is. */
function counted(form, position, width) {
  const many = positions(form);
  const step = (width - 2 * SIDE) / PRINTED;
  return Array.from({ length: PRINTED }, (_, n) => svg("circle", {
    class: n < position ? "taken" : n < many ? "free" : "missing",
    cx: SIDE + step * (n + 0.5), cy: MARKS.y, r: Math.min(5.5, step * 0.4),
  }));
}
