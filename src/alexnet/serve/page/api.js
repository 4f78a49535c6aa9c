/** Asking the server: its answers as values, its refusals as sentences. */

const MAX_WAIT = 300; // seconds that a busy server is asked again, as often as it says
const TOKEN = "alexnet-token"; // where the browser keeps it until the tab is closed

/** What the server, or the way to it, says against a request. */
export class HTTPError extends Error {
  constructor(reason, fix = "", status = 0) {
    super([reason, fix].filter(Boolean).join(" "));
    this.status = status;
  }
}

/**
 * Ask for `path`; with a photograph (a Blob) it is sent as it is. Returns what the server's JSON
 * holds, or the Blob of an image.
 *
 * Addresses are relative, so the page also works behind a proxy that puts it in a folder. A server
 * that is busy (503) is asked again after the time that it names.
 *
 * @throws {HTTPError} when the server refuses or cannot be reached
 * @throws {DOMException} AbortError, when `signal` is aborted
 */
export async function request(path, { query = {}, photograph, signal } = {}) {
  const address = `v1/${path}?${new URLSearchParams(query)}`;
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (photograph) headers["Content-Type"] = "application/octet-stream"; // the bytes alone count
  const options = { signal, headers, method: photograph ? "POST" : "GET", body: photograph };
  for (let waited = 0; ; ) {
    const response = await fetch(address, options).catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new HTTPError("The server cannot be reached.", "See whether alexnet serve is running.");
    });
    const isJSON = response.headers.get("Content-Type") === "application/json";
    if (response.ok) return isJSON ? response.json() : response.blob();
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    waited += seconds;
    if (response.status !== 503 || waited > MAX_WAIT) throw await readError(response);
    await pause(seconds, signal);
  }
}

/** Keep the token of a server that asks for one. */
export const keepToken = (token) => sessionStorage.setItem(TOKEN, token);

async function readError(response) {
  try {
    const { error } = await response.json();
    return new HTTPError(error.reason, error.fix, response.status);
  } catch {
    return new HTTPError(`The server answered ${response.status} ${response.statusText}.`);
  }
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
