/** The photograph: dropped, pasted, chosen, taken or an example; and what the network sees of it. */

import { request } from "./api.js";
import { byId, showBlob, showNote, svg } from "./dom.js";

export function start(session) {
  for (const input of [byId("choose"), byId("take")]) {
    input.addEventListener("change", () => {
      if (input.files.length) offer(session, input.files[0]);
      input.value = ""; // the same file can be chosen again
    });
  }
  document.addEventListener("paste", (event) => takeFrom(session, event, event.clipboardData));
  acceptDrops(session);
  offerExample(session);
  session.addEventListener("photograph", () => show(session.photograph));
  session.addEventListener("answer", () => drawCrop(session.answer.crops[0]));
}

function takeFrom(session, event, transfer) {
  const file = [...(transfer?.files ?? [])][0];
  if (!file) return;
  event.preventDefault();
  offer(session, file);
}

/** Take a file, but one that the server would hang up on: a browser cannot tell that from a fault. */
function offer(session, file) {
  const { max_bytes: most } = session.model.limits;
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  const tooLarge = `${file.name} has ${megabytes(file.size)}; the server takes ${megabytes(most)}.`;
  if (file.size > most) showNote(byId("crop-note"), tooLarge, true);
  else session.setPhotograph(file);
}

/** The whole page takes drops: an aim that is missed must not replace the page by the file. */
function acceptDrops(session) {
  const veil = byId("dropping");
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    veil.hidden = true;
    takeFrom(session, event, event.dataTransfer);
  });
}

/** A stranger without a photograph at hand can start with one of the images kept for testing. */
function offerExample(session) {
  const button = byId("example");
  button.hidden = !session.model.has_training_images;
  button.addEventListener("click", async () => {
    const number = Math.floor(Math.random() * 1e6); // the server takes any
    try {
      session.setPhotograph(await request("example", { query: { number } }));
    } catch (error) {
      showNote(byId("crop-note"), error.message, true);
    }
  });
}

function show(photograph) {
  const picture = byId("picture");
  const name = photograph.name || "your photograph";
  byId("crop").replaceChildren();
  showNote(byId("crop-note"), name);
  byId("invitation").hidden = true;
  byId("shown").hidden = false;
  picture.alt = `The photograph: ${name}`;
  picture.onerror = () => {
    showNote(byId("crop-note"), `${name}: this browser cannot show such a file.`);
  };
  showBlob(picture, photograph);
}

/**
 * Draw on the photograph what the network saw of it: boxes of [left, top, right, bottom] in pixels
 * of the photograph, upright.
 */
function drawCrop({ width, height, square, views }) {
  const drawing = byId("crop");
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const [first] = views;
  const outside = `M0 0H${width}V${height}H0Z`;
  drawing.replaceChildren(
    svg("path", { class: "outside", "fill-rule": "evenodd", d: outside + outline(union(views)) }),
    svg("path", { class: "square", d: outline(square) }),
    ...views.map((box) => svg("path", { class: "view", d: outline(box) })),
  );
  const side = Math.round(first[2] - first[0]);
  showNote(byId("crop-note"), views.length === 1
    ? `The network sees ${side}×${side} pixels: the inner frame.`
    : "The network sees five frames and their mirror images.");
}

/** The path around a box. */
export const outline = ([left, top, right, bottom]) => `M${left} ${top}H${right}V${bottom}H${left}Z`;

const union = (boxes) => [Math.min, Math.min, Math.max, Math.max].map((most, side) =>
  most(...boxes.map((box) => box[side])));
