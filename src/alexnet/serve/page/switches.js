/** What if: the trained network with one thing changed, its answers before and after. */

import { request } from "./api.js";
import { byId, html, latestOnly } from "./dom.js";
import { drawBars, drawEmptyBars, speak } from "./predictions.js";

const MOST = 1000; // classes asked for, so that each has a before and an after

/** Each switch: the setting of the request, what it is called, what it does, where it can be. */
const SWITCHES = [
  {
    setting: ["lrn", "off"],
    name: () => "No response normalisation",
    words: "A map is no longer held down by the maps beside it (section 3.3 of the paper).",
    fits: ({ convs }) => convs.some((conv) => conv.norm || conv.within_channel_lrn),
    absent: "This network has no response normalisation.",
  },
  {
    setting: ["dropout_scale", "off"],
    name: ({ dropout }) => `No ×${1 - dropout.rate} after dropout`,
    words:
      "In training a share of the hidden units was silent at any time. Now all of them speak, " +
      "and nothing makes up for it (section 4.2).",
    fits: ({ dropout, dense }) => dropout.form === "2012" && dropout.rate > 0 && dense.length > 0,
    absent: "This network does not scale its hidden units when it is tested.",
  },
  {
    setting: ["mirror", "on"],
    name: () => "Mirrored photograph",
    words: "The network was trained on images and their mirror images: little should change.",
    fits: () => true,
  },
];

export function start(session) {
  const list = byId("switch-bars");
  const run = latestOnly(list, byId("switch-spoken"));
  const update = () => run((signal) => show(session, list, signal));
  byId("switch-list").append(...SWITCHES.map((one) => control(one, session.model.spec)));
  byId("switch-list").addEventListener("change", () => {
    const on = [...byId("switch-list").querySelectorAll(":checked")];
    session.setSwitches({
      query: Object.fromEntries(on.map((box) => [box.name, box.value])),
      names: on.map((box) => box.parentElement.querySelector("b").textContent),
    });
    update();
  });
  session.whenSeen("switches", () => {
    drawEmptyBars(list, session.model);
    update();
  });
}

function control({ setting, name, words, fits, absent }, spec) {
  const possible = fits(spec);
  const box = html("input", {
    type: "checkbox", role: "switch", name: setting[0], value: setting[1], disabled: !possible,
  });
  return html("label", {}, box,
    html("span", {}, html("b", {}, name(spec)), html("small", {}, possible ? words : absent)));
}

async function show({ photograph, model, switches }, list, signal) {
  if (!photograph) return "The bars appear here when there is a photograph.";
  const query = { top: Math.min(MOST, model.classes.count) };
  const changed = { ...query, ...switches.query };
  const answers = [await request("predict", { query, photograph, signal })];
  if (switches.names.length) answers.push(await request("predict", { query: changed, photograph, signal }));
  const [before, after] = answers.map((answer) => answer.predictions[0]);
  drawBars(list, (after ?? before).slice(0, 5), after && before);
  return after ? `Changed: ${speak(after.slice(0, 1))}` : "As trained, from one view.";
}
