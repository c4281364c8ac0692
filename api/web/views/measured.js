/* What jobs measured or bracketed: tightness, activation patterns, the largest radius. */

import { h, table } from "../dom.js";
import { number, percent } from "../format.js";

const LISTED = 200;

/** How much of the interval bounds is the network's, layer by layer. */
export function tightnessPanel(found) {
  const rows = found.layers.slice(0, LISTED).map((each) => [each.name, each.op, number(each.tightness)]);
  return h("section", { class: "card", "aria-label": "Tightness" }, h("h3", {}, "Tightness"),
    h("p", { class: "words" }, `${number(found.tightness)} on average: the width of the box that the active linear map needs, over that of layer-by-layer intervals. 1 is exact.`),
    rows.length ? table("Tightness by layer", ["cut behind", "operator", "tightness"], rows) : null);
}

/** The pattern of every class, and how much of the data follows it. */
export function patternsPanel(found) {
  const share = (value) => (value === null ? "–" : percent(value));
  const sizes = new Map(found.patterns.map((each) => [each.class, constrained(each)]));
  const rows = found.coverage.slice(0, LISTED).map((each) => [each.class, sizes.get(each.class), each.samples, share(each.recall), share(each.precision)]);
  const of = found.held_out ? `${found.held_out} samples that were held out` : "the samples that they were mined from";
  return h("section", { class: "card", "aria-label": "Activation patterns" }, h("h3", {}, "Activation patterns"),
    h("p", { class: "words" }, `A pattern says which neurons are active and which are not. Recall and precision are of ${of}.`),
    table("Patterns by class", ["class", "neurons in it", "samples", "recall", "precision"], rows));
}

function constrained(pattern) {
  const all = pattern.layers.reduce((sum, each) => sum + each.neurons, 0);
  const said = pattern.layers.reduce((sum, each) => sum + each.active.length + each.inactive.length, 0);
  return `${said} of ${all}`;
}

/** Between which radii the truth lies, every digit of them. pattern: whether only inputs that follow one count. */
export function radiusPanel(found, pattern) {
  const proved = !found.verified ? "Nothing was proved at any radius that was asked about" : `Proved up to ${found.verified}${found.whole ? ", the largest radius that was asked about" : ""}`;
  const refuted = found.falsified === null ? "no counterexample was found" : `refuted from ${found.falsified} on`;
  const follows = found.inhabited ? " Among these inputs one was found that follows the pattern." : " No input was found that follows the pattern: there may be none within this radius.";
  return h("section", { class: "card", "aria-label": "Largest radius" }, h("h3", {}, "Largest radius"),
    h("p", { class: "words" }, `${proved}; ${refuted}.${pattern && found.verified ? follows : ""}`));
}
