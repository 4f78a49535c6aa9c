/**
 * Elements, and the notes beside them. Text given here is only ever text: nothing on this page
 * parses HTML, so a class called `<b>` is shown as those three characters.
 */

const SVG = "http://www.w3.org/2000/svg";

/** Return the element of this page with an id. */
export const byId = (id) => document.getElementById(id);

/** Make an HTML element; children are elements or text. */
export const html = (name, attributes, ...children) =>
  fill(document.createElement(name), attributes, children);

/** Make an SVG element. */
export const svg = (name, attributes, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);

function fill(element, attributes = {}, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === undefined) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/**
 * Make one of several radio buttons: arrow keys, focus and announcement are the browser's own.
 * `children` are what is seen of it.
 */
export function radio(name, value, children, { checked = false, label } = {}) {
  const input = html("input", { type: "radio", name, value, checked, "aria-label": label });
  return html("label", {}, input, html("span", {}, ...children));
}

/** Write names and numbers as a description list. */
export function describe(list, pairs) {
  list.replaceChildren(
    ...pairs.map(([term, value]) =>
      html("div", {}, html("dt", {}, term), html("dd", {}, String(value))),
    ),
  );
}

/** Show a Blob in an <img>, which gives up the one before. */
export function showBlob(picture, blob) {
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(blob);
}

/** Write a sentence into a note; an error is marked and read out. */
export function showNote(note, text, isError = false) {
  note.classList.toggle("wrong", isError);
  if (isError) note.setAttribute("role", "alert");
  else note.removeAttribute("role");
  note.textContent = text;
}

/**
 * Return a function that runs tasks for the part of the page `place`; a newer one aborts an older.
 *
 * While a task runs, `place` is aria-busy and `note` says `waiting`; then the note says what the
 * task returned, or why it was refused. A task is given a signal, aborted when a newer one begins.
 */
export function latestOnly(place, note) {
  let current;
  return async function run(task, waiting = "Asking the network …") {
    current?.abort();
    const mine = (current = new AbortController());
    place.setAttribute("aria-busy", "true");
    showNote(note, waiting);
    try {
      const news = await task(mine.signal);
      if (mine === current) showNote(note, news ?? "");
    } catch (error) {
      if (error.name !== "AbortError" && mine === current) showNote(note, error.message, true);
    } finally {
      if (mine === current) place.removeAttribute("aria-busy");
    }
  };
}
