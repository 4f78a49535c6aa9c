/** The network, off the page's thread: answers what api.js asks, one question after the other. */

import { cover, cropInto, cropOffsets, resizeSquare } from "./pixels.js";

const EDGE = 3; // pixels beside the central square that enlarging it looks at
const ANSWERS = { model: describe, predict, occlusion };
const aborted = new Set();
const loading = load();
let last = Promise.resolve();

onmessage = ({ data }) => {
  if (data.path === "abort") aborted.add(data.number);
  else last = last.then(() => answer(data));
};

async function answer({ number, path, query, photograph }) {
  if (aborted.delete(number)) return;
  try {
    postMessage({ number, answer: await ANSWERS[path](await loading, query, photograph) });
  } catch (error) {
    postMessage({ number, reason: error.message ?? String(error) });
  }
}

/** Fetch the description and the shards of the model, and start it: on a GPU, if there is one. */
async function load() {
  const about = await (await fetchFile("model.json")).json();
  const model = new Uint8Array(about.bytes);
  let at = 0;
  for (const shard of about.shards) {
    const part = new Uint8Array(await (await fetchFile(shard)).arrayBuffer());
    if (at + part.length > model.length) throw new Error(`${shard} is of another model.`);
    model.set(part, at);
    at += part.length;
  }
  if (at < model.length) throw new Error(`${about.bytes - at} bytes of the model are missing.`);
  const { crop: size, prepared, scale, mean, stdev, channels } = about.preprocessing;
  const image = mean.float32_base64;
  const decoded = image && Uint8Array.from(atob(image), (letter) => letter.charCodeAt(0));
  const pixels = {
    size, prepared, scale, stdev, bgr: channels === "BGR",
    mean: decoded ? new Float32Array(decoded.buffer) : mean.colour,
  };
  const grey = mean.colour.map((value) => Math.round(value / scale)); // nothing special
  const network = { about, pixels, grey };
  if (await navigator.gpu?.requestAdapter()) {
    try {
      return await start(network, model, "webgpu", "./ort.webgpu.bundle.min.mjs");
    } catch (error) {
      console.warn(`WebGPU: ${error.message}`); // a layer larger than it takes, for one
    }
  }
  return start(network, model, "wasm", "./ort.wasm.bundle.min.mjs");
}

async function fetchFile(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} cannot be fetched (${response.status}).`);
  return response;
}

async function start(network, model, device, address) {
  const ort = await import(address);
  // Several threads share memory, which a browser allows behind COOP and COEP headers alone.
  const threads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
  ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create(model, { executionProviders: [device] });
  const started = { ...network, ort, session, device, threads };
  await run(started, [[new Uint8Array(3 * network.pixels.prepared ** 2), [0, 0], false]]);
  return started;
}

/** Return the probabilities for views, each [square, [top, left], mirrored]: an array of each. */
async function run({ ort, session, pixels }, views) {
  const count = 3 * pixels.size ** 2;
  const batch = new Float32Array(views.length * count);
  views.forEach(([square, place, mirrored], i) =>
    cropInto(batch.subarray(i * count, (i + 1) * count), square, place, mirrored, pixels));
  const input = new ort.Tensor("float32", batch, [views.length, 3, pixels.size, pixels.size]);
  const { data, dims } = (await session.run({ pixels: input }, ["probabilities"])).probabilities;
  return views.map((_, i) => data.subarray(i * dims[1], (i + 1) * dims[1]));
}

function describe({ about, device, threads }) {
  const { network: name, step, names, bytes } = about;
  const wasm = `WebAssembly, ${threads === 1 ? "one thread" : `${threads} threads`}`;
  return {
    name, step, classes: { count: names.length }, megabytes: Math.round(bytes / 1e6),
    device: device === "webgpu" ? "WebGPU" : wasm,
    limits: { max_bytes: Infinity }, methods: [], has_training_images: false,
  };
}

/** As POST v1/predict of `alexnet serve`. */
async function predict(network, { top, views }, photograph) {
  const { about, pixels } = network;
  const { square, width, height, place } = await readSquare(photograph, pixels.prepared);
  const started = performance.now();
  const corners = cropOffsets(pixels.prepared, pixels.size, views);
  const turns = views === 10 ? [false, true] : [false];
  const crops = corners.flatMap((corner) => turns.map((mirrored) => [square, corner, mirrored]));
  const found = await run(network, crops);
  const ranked = about.names.map((name, i) => ({
    name,
    label: about.classes[i],
    probability: found.reduce((sum, chances) => sum + chances[i], 0) / found.length,
  })).sort((a, b) => b.probability - a.probability);
  const boxes = corners.map(([y, x]) => place([x, y, x + pixels.size, y + pixels.size]));
  return {
    predictions: [ranked.slice(0, top)],
    crops: [{
      width, height, square: place([0, 0, pixels.prepared, pixels.prepared]), view: boxes[0],
      views: boxes,
    }],
    milliseconds: performance.now() - started,
  };
}

/** As POST v1/occlusion, on a processor with fewer squares: a forward pass each. */
async function occlusion(network, { label }, photograph) {
  const { about, pixels, grey, device } = network;
  const { size: view, prepared } = pixels;
  const { square, place } = await readSquare(photograph, prepared);
  const middle = cropOffsets(prepared, view, 1)[0];
  const [offset] = middle;
  const [whole] = await run(network, [[square, middle, false]]);
  const number = label ? about.classes.indexOf(label) : whole.indexOf(Math.max(...whole));
  const steps = device === "webgpu" ? 11 : 7;
  const size = Math.max(1, Math.floor(view / 4));
  const stride = Math.max(1, Math.floor((view - size) / (steps - 1)));
  const starts = Array.from({ length: steps }, (_, step) => offset + step * stride);
  const grid = [];
  for (const top of starts) {
    const row = await run(network, starts.map((left) =>
      [cover(square, prepared, [top, left], size, grey), middle, false]));
    grid.push(row.map((chances) => chances[number]));
  }
  return {
    class: about.names[number], label: about.classes[number], probability: whole[number],
    grid, size, stride, view, box: place([offset, offset, offset + view, offset + view]),
  };
}

/**
 * Decode a photograph, upright, its colours as they stand in the file, and scale its central square
 * to `size`; `place` says where a box of that square lies in the photograph.
 */
async function readSquare(photograph, size) {
  const bitmap = await createImageBitmap(photograph, {
    colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image",
  }).catch(() => {
    throw new Error("This browser cannot read such a file.");
  });
  const { width, height } = bitmap;
  const side = Math.min(width, height);
  const [left, top] = [(width - side) / 2, (height - side) / 2];
  const [x, y] = [left, top].map((from) => Math.max(0, Math.floor(from) - EDGE));
  const right = Math.min(width, Math.ceil(left + side) + EDGE);
  const bottom = Math.min(height, Math.ceil(top + side) + EDGE);
  const canvas = new OffscreenCanvas(right - x, bottom - y);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, -x, -y);
  bitmap.close();
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const box = [left - x, top - y, left - x + side, top - y + side];
  const scale = side / size;
  const place = ([x0, y0, x1, y1]) =>
    [left + x0 * scale, top + y0 * scale, left + x1 * scale, top + y1 * scale];
  return { square: resizeSquare(image, box, size), width, height, place };
}
