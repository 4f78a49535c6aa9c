/** What the parts of the page share: the model, the photograph, and what is being looked at. */

import { ask } from "./api.js";
import { brightened, sheet } from "./sheets.js";

/**
 * Tells of changes by events: `photograph`, `answer` (the crop is known), `layer`, `panel`.
 */
export class Session extends EventTarget {
  #maps = new Map(); // output -> the promise of its sheet, of this photograph

  /** @param model what `GET v1/model` answered */
  constructor(model) {
    super();
    this.model = model;
    this.photograph = null; // a Blob
    this.answer = null; // of `POST v1/predict`, for this photograph
    this.layer = null; // the chosen row of model.layers
    this.panel = "";
  }

  /** Take a new photograph; every part that shows something of it hears of it. */
  take(photograph) {
    this.photograph = photograph;
    this.answer = null;
    this.#maps.clear();
    this.dispatchEvent(new Event("photograph"));
  }

  /** Take note of what the network answered. */
  answered(answer) {
    this.answer = answer;
    this.dispatchEvent(new Event("answer"));
  }

  /** Choose a layer by its name. */
  choose(name) {
    this.layer = this.model.layers.find((row) => row.name === name);
    this.dispatchEvent(new Event("layer"));
  }

  /** Say which panel is shown now. */
  show(panel) {
    this.panel = panel;
    this.dispatchEvent(new Event("panel"));
  }

  /** The outputs between a layer and the next: conv1, relu1, norm1. */
  outputs(row) {
    const { layers, outputs } = this.model;
    const names = layers.map((layer) => layer.name);
    const first = outputs.indexOf(row.name);
    const rest = outputs.slice(first + 1);
    const end = rest.findIndex((name) => names.includes(name));
    const all = [row.name, ...(end < 0 ? rest : rest.slice(0, end))];
    return first < 0 ? [] : all.filter((name) => !/^(flatten|pad|drop)/.test(name));
  }

  /** The output by which a layer is shown first: after its activation, where it has one. */
  shownOutput(row) {
    const names = this.outputs(row);
    return names.find((name) => name.startsWith(this.model.spec.activation)) ?? names[0];
  }

  /** The maps of an output for this photograph, fetched once. */
  maps(output) {
    if (!this.#maps.has(output)) {
      const asked = ask("maps", { query: { layer: output }, photograph: this.photograph });
      const maps = asked.then(sheet).then(brightened);
      maps.catch(() => this.#maps.delete(output)); // to be asked again
      this.#maps.set(output, maps);
    }
    return this.#maps.get(output);
  }

  /**
   * Call `update` when `panel` is seen, and again when it is seen with another photograph: a panel
   * that nobody looks at asks the server for nothing.
   */
  whenSeen(panel, update) {
    let last;
    const look = () => {
      if (this.panel !== panel || last === this.photograph) return;
      last = this.photograph;
      update();
    };
    this.addEventListener("panel", look);
    this.addEventListener("photograph", look);
  }

  /** Call `update` once, when `panel` is first seen. */
  whenFirstSeen(panel, update) {
    const look = () => {
      if (this.panel !== panel) return;
      this.removeEventListener("panel", look);
      update();
    };
    this.addEventListener("panel", look);
  }
}
