/** The questions that the served page asks its server, answered in the browser by a worker. */

const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // number of a question -> what settles its promise
let asked = 0;

worker.onmessage = ({ data: { number, answer, reason } }) => {
  const { resolve, reject } = waiting.get(number);
  waiting.delete(number);
  if (reason === undefined) resolve(answer);
  else reject(new Error(reason));
};
worker.onerror = (event) => {
  const reason = new Error(`The network cannot be loaded (${event.message ?? "no worker"}).`);
  for (const { reject } of waiting.values()) reject(reason);
};

/**
 * Ask for `path`: `model`, `predict` or `occlusion`, with the answers that `alexnet serve` gives to
 * the same. An aborted question is answered to nobody, and is not begun if it still waits.
 *
 * @throws {Error} with a sentence for the reader
 * @throws {DOMException} AbortError, when `signal` is aborted
 */
export function request(path, { query = {}, photograph, signal } = {}) {
  return new Promise((resolve, reject) => {
    const number = asked++;
    waiting.set(number, { resolve, reject });
    worker.postMessage({ number, path, query, photograph });
    signal?.addEventListener("abort", () => {
      worker.postMessage({ number, path: "abort" });
      reject(signal.reason);
    });
  });
}
