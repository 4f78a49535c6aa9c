/** What the parts of the page share: the model, the photograph, and what is being looked at. */

import { request } from "./api.js";
import { brighten, loadSprites } from "./sprites.js";

/**
 * Tells of changes by events: `photograph`, `answer` (the crop is known), `layer`, `panel`,
 * `switches`.
 */
export class Session extends EventTarget {
  #maps = new Map(); // output -> the promise of its sprites, of this photograph

  /** @param model what `GET v1/model` answered */
  constructor(model) {
    super();
    this.model = model;
    this.photograph = null; // a Blob
    this.answer = null; // of `POST v1/predict`, for this photograph
    this.layer = null; // the chosen row of model.layers
    this.panel = "";
    this.switches = { query: {}, names: [] }; // what is changed in the network, as requests say it
  }

  /** Take a new photograph; every part that shows something of it hears of it. */
  setPhotograph(photograph) {
    this.answer = null;
    this.#maps.clear();
    this.#set("photograph", photograph);
  }

  /** Take note of what the network answered. */
  setAnswer(answer) {
    this.#set("answer", answer);
  }

  /** Choose a layer by its name. */
  setLayer(name) {
    this.#set("layer", this.model.layers.find((row) => row.name === name));
  }

  /** Say which panel is shown now. */
  setPanel(panel) {
    this.#set("panel", panel);
  }

  /** Say what is changed in the network that is asked. */
  setSwitches(switches) {
    this.#set("switches", switches);
  }

  #set(name, value) {
    this[name] = value;
    this.dispatchEvent(new Event(name));
  }

  /** The outputs between a layer and the next: conv1, relu1, norm1; none of the input. */
  outputs(row) {
    const { layers, outputs } = this.model;
    const names = layers.map((layer) => layer.name);
    const first = outputs.indexOf(row.name);
    if (first < 0) return [];
    const end = outputs.findIndex((name, at) => at > first && names.includes(name));
    return outputs.slice(first, end < 0 ? undefined : end);
  }

  /** The output by which a layer is shown first: after its activation, where it has one. */
  shownOutput(row) {
    const names = this.outputs(row);
    return names.find((name) => name.startsWith(this.model.spec.activation)) ?? names[0];
  }

  /** The maps of an output for this photograph, fetched once. */
  maps(output) {
    if (!this.#maps.has(output)) {
      const asked = request("maps", { query: { layer: output }, photograph: this.photograph });
      const maps = asked.then(loadSprites).then(brighten);
      maps.catch(() => this.#maps.delete(output)); // to be asked again
      this.#maps.set(output, maps);
    }
    return this.#maps.get(output);
  }

  /**
   * Call `update` when `panel` is seen, and again when it is seen with other subjects, by default
   * another photograph: a panel that nobody looks at asks the server for nothing.
   */
  whenSeen(panel, update, subjects = () => [this.photograph]) {
    let last;
    const look = () => {
      const now = subjects();
      if (this.panel !== panel || last?.every((one, at) => one === now[at])) return;
      last = now;
      update();
    };
    this.addEventListener("panel", look);
    this.addEventListener("photograph", look);
  }
}
