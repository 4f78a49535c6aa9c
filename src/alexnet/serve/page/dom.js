/**
 * Making elements. Text given here is only ever text: nothing on this page parses HTML, so a class
 * called `<b>` is shown as those three characters.
 */

const SVG = "http://www.w3.org/2000/svg";

/** Return the element of this page with an id. */
export const byId = (id) => document.getElementById(id);

/** Make an HTML element; children are elements or text. */
export function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Make an SVG element. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
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
