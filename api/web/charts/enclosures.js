/* Lower and upper bounds of every output as they tighten: a small panel an output, all of one scale. */

import { fresh, h, s } from "../dom.js";
import { number, seconds } from "../format.js";
import { domain, linear } from "./scale.js";

const WIDTH = 120;
const HEIGHT = 80;
const EDGE = { top: 4, right: 2, bottom: 4, left: 2 };
const SHOWN = 20;

/** outputs: how many there are; label: the one that must win, or null. Frames are there from the beginning. */
export class Enclosures {
  constructor(outputs, label) {
    this.label = label;
    this.count = Math.min(outputs, SHOWN);
    this.id = fresh("enclosures");
    this.words = h("p", { class: "words one-line" }, "waiting for the first bounds");
    this.panels = Array.from({ length: this.count }, (_, output) => this.#panel(output));
    this.body = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Bounds of the outputs, numbers" });
    this.details = h("details", { class: "numbers", ontoggle: () => this.#list() }, h("summary", {}, "Numbers"), this.body);
    const more = outputs > SHOWN ? ` (the first ${SHOWN} of ${outputs})` : "";
    this.element = h("figure", { class: "chart", "aria-labelledby": this.id },
      h("figcaption", { id: this.id }, h("span", { class: "chart-title" }, `Lower and upper bound of each output${more}`)),
      this.words, h("div", { class: "panels" }, this.panels.map((panel) => panel.element)), this.details);
    this.found = [];
  }

  /** found: what the job's progress has as `bounds`. */
  set(found) {
    if (!found?.length || found.length === this.found.length) return;
    this.found = found;
    this.words.textContent = found.map((each) => `${each.method} ${seconds(each.seconds)}`).join("  →  ");
    const last = found.at(-1);
    const every = found.flatMap((each) => [...each.lower.slice(0, this.count), ...each.upper.slice(0, this.count)]);
    const y = linear(domain(every), [HEIGHT - EDGE.bottom, EDGE.top]);
    const least = this.label === null || this.label >= this.count ? null : last.lower[this.label];
    for (const panel of this.panels) panel.draw(found, y, least);
    this.#list();
  }

  /** The job is over: there will be no others. */
  close() {
    if (!this.found.length) this.words.textContent = "none: the job was over before they were computed";
  }

  #panel(output) {
    const own = output === this.label;
    const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `Output ${output}: no bounds yet` });
    const times = h("span", { class: "panel-times", "aria-hidden": "true" });
    const words = h("span", { class: "panel-words" }, "–");
    const element = h("div", { class: own ? "panel own" : "panel" },
      h("span", { class: "panel-title" }, own ? `${output} (label)` : `${output}`), svg, times, words);
    const draw = (found, y, least) => {
      const x = linear([-0.35, found.length - 0.35], [EDGE.left, WIDTH - EDGE.right]);
      svg.replaceChildren(...drawn(found, output, x, y, least));
      times.replaceChildren(...found.map((each) => h("span", {}, seconds(each.seconds))));
      const { lower, upper } = found.at(-1);
      words.textContent = `${number(lower[output])} … ${number(upper[output])}`;
      svg.setAttribute("aria-label", `Output ${output} lies between ${number(lower[output])} and ${number(upper[output])}`);
    };
    return { element, draw };
  }

  #list() {
    if (!this.details.open) return;
    const heads = ["output", ...this.found.map((each) => `${each.method} (${seconds(each.seconds)})`)];
    const rows = this.panels.map((_, k) => [k, ...this.found.map((each) => `${number(each.lower[k])} … ${number(each.upper[k])}`)]);
    this.body.replaceChildren(h("table", {},
      h("caption", { class: "visually-hidden" }, "Bounds of the outputs, by method"),
      h("thead", {}, h("tr", {}, heads.map((each) => h("th", { scope: "col" }, each)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))))));
  }
}

/** A band that narrows from one method to the next; times are under it, in order but not to scale. */
function drawn(found, output, x, y, least) {
  const upper = [];
  const lower = [];
  found.forEach((each, k) => {
    upper.push([x(k - 0.35), y(each.upper[output])], [x(k + 0.65), y(each.upper[output])]);
    lower.push([x(k - 0.35), y(each.lower[output])], [x(k + 0.65), y(each.lower[output])]);
  });
  const path = (points) => points.map(([a, b], k) => `${k ? "L" : "M"}${a} ${b}`).join("");
  return [
    s("path", { d: `${path(upper)}L${path(lower.reverse()).slice(1)}Z`, class: "band" }),
    s("path", { d: path(upper), class: "line" }),
    s("path", { d: path(lower), class: "line" }),
    least === null ? null : s("line", { x1: 0, x2: WIDTH, y1: y(least), y2: y(least), class: "level" }),
  ].filter(Boolean);
}
