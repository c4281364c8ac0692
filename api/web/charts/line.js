/* A chart of lines against one axis. Its height never changes, whatever is drawn into it. */

import { fresh, h, s } from "../dom.js";
import { number } from "../format.js";
import { domain, linear, ticks } from "./scale.js";

const EDGE = { top: 10, right: 14, bottom: 34, left: 54 };

/**
 * lines: {name, tone, unnamed, step, points}; step: a value holds "after" its place, "before" it, or neither, then lines
 * join them; x, y: {label, zero, from, to}. `set` draws other points in the same frame.
 */
export class LineChart {
  constructor(title, { x, y, lines, level = null, empty = "nothing yet" }) {
    this.title = title;
    this.axes = { x, y };
    this.lines = lines.map((line) => ({ points: [], tone: "accent", step: null, ...line }));
    this.level = level;
    this.empty = empty;
    const id = fresh("chart");
    this.svg = s("svg", { class: "plot", role: "img", "aria-label": title });
    this.body = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, numbers` });
    this.details = h("details", { class: "numbers", ontoggle: () => this.#list() }, h("summary", {}, "Numbers"), this.body);
    this.element = h("figure", { class: "chart", "aria-labelledby": id },
      h("figcaption", { id }, h("span", { class: "chart-title" }, title), this.#legend()), this.svg, this.details);
    new ResizeObserver(() => this.#draw()).observe(this.svg);
  }

  /** points: a list of [x, y] by the line's name. */
  set(points) {
    for (const line of this.lines) line.points = points[line.name] ?? line.points;
    this.#draw();
    this.#list();
  }

  #legend() {
    if (this.lines.length < 2) return null;
    return h("span", { class: "legend" }, this.lines.filter((line) => !line.unnamed).map((line) => h("span", { class: `key ${line.tone}` }, line.name)));
  }

  #draw() {
    const width = this.svg.clientWidth;
    const height = this.svg.clientHeight;
    if (!width || !height) return;
    const all = this.lines.flatMap((line) => line.points);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("aria-label", this.#summary());
    const xs = this.#domain("x", all.map(([x]) => x));
    const ys = this.#domain("y", [...all.map(([, y]) => y), ...(this.level === null ? [] : [this.level])]);
    const x = linear(xs, [EDGE.left, width - EDGE.right]);
    const y = linear(ys, [height - EDGE.bottom, EDGE.top]);
    const nothing = all.length ? null : s("text", { x: x((xs[0] + xs[1]) / 2), y: height / 2, class: "empty" }, this.empty);
    this.svg.replaceChildren(...this.#frame(x, y, xs, ys, width, height), ...this.lines.flatMap((line) => drawn(line, x, y)));
    if (nothing) this.svg.append(nothing);
  }

  #domain(axis, values) {
    const { zero, from, to } = this.axes[axis];
    const [low, high] = domain(values, { zero, room: axis === "x" ? 0 : 0.06 });
    return [from ?? low, to ?? high];
  }

  #frame(x, y, xs, ys, width, height) {
    const level = this.level === null ? [] : [s("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y(this.level), y2: y(this.level), class: "level" })];
    return [
      ...ticks(...ys, 5).map((value) => s("g", {},
        s("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value), class: "rule" }),
        s("text", { x: EDGE.left - 8, y: y(value) + 4, class: "tick end" }, number(value)))),
      ...level,
      ...ticks(...xs, Math.max(3, Math.floor(width / 110))).map((value) => s("text", { x: x(value), y: height - EDGE.bottom + 16, class: "tick" }, number(value))),
      s("text", { x: (EDGE.left + width - EDGE.right) / 2, y: height - 3, class: "tick" }, this.axes.x.label),
    ];
  }

  #summary() {
    const told = this.lines.filter((line) => line.points.length).map((line) => {
      const [x, y] = line.points.at(-1);
      return `${line.name}: ${line.points.length} values, ${number(y)} at ${number(x)}`;
    });
    return `${this.title}; ${told.length ? told.join("; ") : this.empty}`;
  }

  /** The numbers, while somebody reads them. */
  #list() {
    if (!this.details.open) return;
    const head = h("thead", {}, h("tr", {}, ["", this.axes.x.label, this.axes.y.label].map((each) => h("th", { scope: "col" }, each))));
    const rows = this.lines.flatMap((line) => line.points.map(([x, y]) => h("tr", {}, [line.name, number(x), number(y)].map((each) => h("td", {}, each)))));
    this.body.replaceChildren(h("table", {}, h("caption", { class: "visually-hidden" }, this.title), head, h("tbody", {}, rows)));
  }
}

function drawn(line, x, y) {
  const points = line.points.filter(([, value]) => Number.isFinite(value)).map(([a, b]) => [x(a), y(b)]);
  if (!points.length) return [];
  const join = { after: (a, b) => `H${a}V${b}`, before: (a, b) => `V${b}H${a}` }[line.step] ?? ((a, b) => `L${a} ${b}`);
  const path = points.map(([a, b], k) => (k === 0 ? `M${a} ${b}` : join(a, b))).join("");
  const [a, b] = points.at(-1);
  return [s("path", { d: path, class: `line ${line.tone}` }), s("circle", { cx: a, cy: b, r: 3.5, class: `dot ${line.tone}` })];
}
