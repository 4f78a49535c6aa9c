/** The page without a server: the parts of the served page that one network and a photograph need. */

import { request } from "./api.js";
import { byId, showNote } from "./dom.js";
import { Session } from "./session.js";
import { count } from "./text.js";
import * as decides from "./decides.js";
import * as photograph from "./photograph.js";
import * as predictions from "./predictions.js";

async function main() {
  const about = byId("about");
  let model;
  try {
    model = await request("model");
  } catch (error) {
    showNote(about, error.message, true);
    return;
  }
  about.textContent =
    `${model.name}: ${count(model.classes.count)} classes, ${model.megabytes} MB, on ${model.device}`;
  const session = new Session(model);
  for (const part of [photograph, predictions, decides]) part.start(session);
  byId("explain").addEventListener("toggle", ({ target }) =>
    session.setPanel(target.open ? "decides" : ""));
}

main();
