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
    verdict: "55 windows that fit to the pixel: (227 − 11) / 4 + 1 = 55. Caffe's networks take 227.",
  },
];

const WIDTH = 1000;
const ROW = { y: 30, height: 34, left: 20, pixel: 4.1 }; // the whole row of pixels
const LENS = { y: 120, height: 74, left: 20, pixel: 40, first: 206, last: 229 }; // its right end

export function start({ model }) {
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
  byId("window-here").textContent = here(model);
  update();
}

const positions = ({ image, before, after }) =>
  Math.floor((before + image + after - KERNEL) / STRIDE) + 1;

/** What the network of this server does. */
function here({ name, spec }) {
  const [{ kernel, stride, padding, overhang }] = spec.convs;
  const more = padding ? `, ${padding} zeros on each side`
    : overhang ? `, ${overhang} zeros past the right and bottom edge` : "";
  return (
    `The network on this page, “${name}”, takes ${spec.image} pixels${more}, and its first ` +
    `windows are ${kernel}×${kernel}, ${stride} apart.`
  );
}

function show(form, position) {
  const first = 1 - form.before + STRIDE * (position - 1);
  const last = first + KERNEL - 1;
  byId("window-words").textContent = inWords(form, position, first, last);
  byId("window-verdict").textContent = form.verdict;
  byId("window-drawing").setAttribute("viewBox", `0 0 ${WIDTH} 250`);
  byId("window-drawing").replaceChildren(
    ...wholeRow(form, first),
    ...lens(form, first, last),
    ...counted(form, position),
  );
}

function inWords(form, position, first, last) {
  const outside = Math.max(0, 1 - first) + Math.max(0, last - form.image);
  const past = outside ? ` ${outside} of them are outside the image.` : "";
  const left = form.image + form.after - last;
  const stuck = left > 0 && left < STRIDE
    ? ` ${left} pixel is left over: another step would need ${STRIDE}.` : "";
  return `Window ${position} of ${positions(form)} covers pixels ${first} to ${last}.${past}${stuck}`;
}

const at = (scale, pixel) => scale.left + scale.pixel * (pixel - (scale.first ?? -1));

/** The whole row, from edge to edge, and the window on it. */
function wholeRow(form, first) {
  const { y, height, pixel } = ROW;
  return [
    svg("text", { x: ROW.left, y: y - 10 }, `A row of ${form.image} pixels`),
    svg("rect", { class: "image", x: at(ROW, 1), y, width: pixel * form.image, height }),
    ...zeros(form).map(([from, many]) =>
      svg("rect", { class: "zeros", x: at(ROW, from), y, width: pixel * many, height })),
    svg("rect", { class: "sliding", x: at(ROW, first), y: y - 4, width: pixel * KERNEL,
      height: height + 8 }),
  ];
}

/** What is added to the image: [first pixel, how many]. */
const zeros = ({ image, before, after }) =>
  [[1 - before, before], [image + 1, after]].filter(([, many]) => many);

/** The right edge under a magnifying glass, pixel by pixel. */
function lens(form, first, last) {
  const { y, height, pixel } = LENS;
  const end = form.image + form.after;
  const pixels = Array.from({ length: LENS.last - LENS.first + 1 }, (_, n) => LENS.first + n);
  const drawn = pixels.filter((n) => n <= end);
  return [
    svg("text", { x: LENS.left, y: y - 12 }, "Its right edge, magnified"),
    ...drawn.flatMap((n) => [
      svg("rect", { class: n > form.image ? "zeros" : "image", x: at(LENS, n), y, width: pixel,
        height }),
      svg("text", { class: "pixel", x: at(LENS, n) + pixel / 2, y: y + height / 2 + 5 },
        n > form.image ? "0" : String(n)),
    ]),
    ...(last >= LENS.first ? [windowUnderLens(first, last)] : []),
  ];
}

function windowUnderLens(first, last) {
  const from = Math.max(first, LENS.first);
  return svg("rect", {
    class: "sliding", x: at(LENS, from), y: LENS.y - 5, width: LENS.pixel * (last - from + 1),
    height: LENS.height + 10,
  });
}

/** A mark for each position: those that have been taken are filled, the printed 55 is outlined. */
function counted(form, position) {
  const many = positions(form);
  return Array.from({ length: PRINTED }, (_, n) => svg("circle", {
    class: n < position ? "taken" : n < many ? "free" : "missing", cx: 29 + 17.45 * n, cy: 228, r: 6,
  }));
}
