/** The page: asks what the network is, then starts each part; a panel is shown by its address. */

import { keepToken, request } from "./api.js";
import { byId, showNote } from "./dom.js";
import { Session } from "./session.js";
import { count } from "./text.js";
import * as decides from "./decides.js";
import * as layer from "./layer.js";
import * as network from "./network.js";
import * as panels from "./panels.js";
import * as photograph from "./photograph.js";
import * as predictions from "./predictions.js";
import * as switches from "./switches.js";
import * as training from "./training.js";
import * as sliding from "./window.js";

// In the order in which they hear of a new photograph: the answer before what explains it.
const PARTS = [
  photograph, predictions, layer, network, decides, panels, switches, sliding, training,
];

async function main() {
  const about = byId("about");
  let model;
  try {
    model = await request("model");
  } catch (error) {
    showNote(about, error.message, true);
    if (error.status === 401) askForToken();
    return;
  }
  about.textContent =
    `${model.name}: ${count(model.classes.count)} classes, ` +
    `trained for ${count(model.step)} steps`;
  const session = new Session(model);
  for (const part of PARTS) part.start(session);
  window.addEventListener("hashchange", () => showPanel(session, true));
  showPanel(session, false);
}

/** A server that was started with a token asks for it once a visit. */
function askForToken() {
  const form = byId("token");
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    keepToken(form.querySelector("input").value);
    location.reload();
  });
}

/** Show the panel that the address names, the network's by default, and hide the others. */
function showPanel(session, movesFocus) {
  const panels = [...document.querySelectorAll(".panel")];
  const name = location.hash.slice(1);
  const chosen = panels.find((panel) => panel.id === name) ?? panels[0];
  for (const panel of panels) panel.hidden = panel !== chosen;
  for (const link of document.querySelectorAll("nav a")) {
    link.removeAttribute("aria-current");
    if (link.hash !== `#${chosen.id}`) continue;
    link.setAttribute("aria-current", "page");
    link.parentElement.scrollLeft = link.offsetLeft - 40; // on a phone not all of them fit
  }
  session.setPanel(chosen.id);
  if (!movesFocus || name !== chosen.id) return;
  const heading = chosen.querySelector("h2");
  heading.focus({ preventScroll: true });
  const { top } = heading.getBoundingClientRect();
  if (top < 0 || top > window.innerHeight / 2) heading.scrollIntoView();
}

main();
