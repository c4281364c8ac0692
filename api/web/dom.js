/* Elements without HTML text: nothing of a stranger's can become markup. */

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 50;

/** An HTML element. Attributes: null and false are left out, true is empty; `on...` are listeners. */
export function h(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function s(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function find(selector, within = document) {
  return within.querySelector(selector);
}

/** Says something to who listens instead of looking; the same words again count as new. */
export function announce(words) {
  const region = find("#announcer");
  region.textContent = "";
  requestAnimationFrame(() => (region.textContent = words));
}

let count = 0;

/** An id that nothing else has. */
export function fresh(name) {
  count += 1;
  return `${name}-${count}`;
}

/** A labelled control in a field of its own; hint: words below it. */
export function field(label, control, hint) {
  control.id ||= fresh("field");
  const words = hint ? h("p", { class: "hint", id: `${control.id}-hint` }, hint) : null;
  if (words) control.setAttribute("aria-describedby", words.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, words);
}

/** A select of [value, words] pairs. */
export function select(options, attributes) {
  return h("select", attributes, options.map(([value, words]) => h("option", { value }, words)));
}

/** Gives a select other [value, words] pairs; the first is chosen, or what was before, if it is still there. */
export function refill(control, options) {
  const before = control.value;
  control.replaceChildren(...options.map(([value, words]) => h("option", { value }, words)));
  control.selectedIndex = Math.max(0, options.findIndex(([value]) => value === before));
}

/** A table in a region that scrolls by itself, with the keyboard too. */
export function table(caption, heads, rows, attributes) {
  const head = h("thead", {}, h("tr", {}, heads.map((each) => h("th", { scope: "col" }, each))));
  const body = h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))));
  const whole = h("table", {}, h("caption", { class: "visually-hidden" }, caption), head, body);
  return h("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0", ...attributes }, whole);
}

/** Facts as a list of names and values; those without a value are left out, long ones come last. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  const wide = (value) => typeof value === "string" && value.length > WIDE;
  known.sort(([, one], [, other]) => wide(one) - wide(other));
  return h("dl", { class: "facts" }, known.map(([name, value]) => h("div", { class: wide(value) ? "span-all" : null }, h("dt", {}, name), h("dd", {}, value))));
}

export function notice(words, tone = "") {
  return h("p", { class: `notice ${tone}`, role: tone === "bad" ? "alert" : "status" }, words);
}
