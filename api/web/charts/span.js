/* A number that is known to lie between two others: a bar from 0, solid up to the one, pale up to the other. */

import { h, s } from "../dom.js";
import { number } from "../format.js";

/** rows: {name, lower, upper}; both may be null. */
export function spans(title, rows, unit) {
  const most = Math.max(...rows.map((row) => row.upper ?? row.lower ?? 0), 1e-12);
  const list = h("ul", { class: "spans", "aria-label": title }, rows.map((row) => {
    const lower = row.lower === null ? 0 : (100 * row.lower) / most;
    const upper = row.upper === null ? lower : (100 * row.upper) / most;
    const gap = row.lower && row.upper ? `, the two differ by ${number((100 * (row.upper - row.lower)) / row.upper)} %` : "";
    const words = `at least ${number(row.lower)}, at most ${number(row.upper)}${unit}${gap}`;
    return h("li", {}, h("span", { class: "span-name" }, row.name),
      s("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
        s("rect", { x: 0, y: 0, width: 100, height: 10, class: "track" }),
        s("rect", { x: 0, y: 0, width: Math.max(0.4, upper), height: 10, class: "open" }),
        s("rect", { x: 0, y: 0, width: lower, height: 10, class: "sure" })),
      h("span", { class: "span-words" }, words));
  }));
  return h("figure", { class: "chart" }, h("figcaption", {}, h("span", { class: "chart-title" }, title)), list);
}
