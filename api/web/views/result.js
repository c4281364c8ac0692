/* What a job found: items, the curve over radii, and one item in full. */

import { LineChart } from "../charts/line.js";
import { spans } from "../charts/span.js";
import { facts, h, table } from "../dom.js";
import { number, percent, seconds } from "../format.js";
import { batchPanels } from "./batch.js";
import { certificatePanel } from "./certificate.js";
import { counterexamplePanel, inputPicture } from "./counterexample.js";
import { patternsPanel, radiusPanel, tightnessPanel } from "./measured.js";
import { badge } from "./verdict.js";

const LISTED = 200;

/** Elements about a job's result. request: what was asked, or null; chosen: the item to show first, or null. */
export function results(job, request, model, chosen) {
  const { items } = job.result;
  if (job.result.batch) return batchPanels(job);
  const detail = h("div", { class: "detail" });
  const show = (item) => detail.replaceChildren(...itemPanels(item, request, model));
  const first = items[chosen ?? 0] ?? items[0];
  if (first) show(first);
  return [
    curve(job.result, request),
    items.length > 1 ? list(items, show, first) : null,
    detail,
  ].filter(Boolean);
}

function list(items, show, first) {
  const rows = items.slice(0, LISTED).map((item) => {
    const button = h("button", { type: "button", class: "link", "aria-pressed": `${item === first}` }, "Show");
    button.addEventListener("click", () => {
      for (const other of body.querySelectorAll("[aria-pressed]")) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", "true");
      show(item);
    });
    return [item.index, item.input ?? "–", number(item.epsilon), badge(item.verdict), number(item.margin), item.method, item.assurance ?? "–", seconds(item.seconds), button];
  });
  const body = table("Items", ["#", "input", "ε", "verdict", "margin", "method", "assurance", "time", ""], rows);
  const more = items.length > LISTED ? h("p", { class: "hint" }, `The first ${LISTED} of ${items.length}.`) : null;
  return h("section", { class: "card", "aria-label": "Items" }, h("h3", {}, `${items.length} items`), body, more);
}

/** Certified accuracy against the radius, and above it the share that no counterexample has reached. */
function curve(result, request) {
  const radii = result.summary.filter((each) => each.epsilon !== null).sort((a, b) => a.epsilon - b.epsilon);
  if (radii.length < 2) return null;
  const shares = radii.map((each) => {
    const all = each.verified + each.falsified + each.unknown + each.timeout;
    return [each.epsilon, each.verified / all, 1 - each.falsified / all];
  });
  const chart = new LineChart("Certified radius", {
    x: { label: "radius ε", zero: true },
    y: { label: "share of inputs", from: 0, to: 1 },
    lines: [{ name: "certified", step: "before" }, { name: "not refuted", tone: "muted", step: "after" }],
  });
  // A larger radius certifies all smaller ones; what refutes a smaller one refutes all larger ones.
  chart.set({ certified: [[0, shares[0][1]], ...shares.map(([e, v]) => [e, v])], "not refuted": [[0, 1], ...shares.map(([e, , n]) => [e, n])] });
  const one = request?.inputs?.inputs.length === 1 ? bracket(radii) : null;
  const rows = radii.map((each, k) => [number(each.epsilon), each.verified, each.falsified, each.unknown + each.timeout, percent(shares[k][1])]);
  return h("section", { class: "card", "aria-label": "Certified radius" }, h("h3", {}, "By radius"), one, chart.element,
    table("Verdicts by radius", ["ε", "verified", "falsified", "undecided", "certified"], rows));
}

/** Of one input: between which radii the truth lies. */
function bracket(radii) {
  const certified = radii.filter((each) => each.verified).at(-1);
  const attacked = radii.find((each) => each.falsified);
  const words = `Certified up to ${certified ? number(certified.epsilon) : "none of these"}, refuted from ${attacked ? number(attacked.epsilon) : "none of these"} on.`;
  return h("p", { class: "words" }, words);
}

function itemPanels(item, request, model) {
  const batch = request?.inputs;
  const original = batch && item.input !== null ? batch.inputs[item.input] : null;
  const label = batch && item.input !== null ? batch.labels[item.input] : null;
  const panels = [summary(item, label, original, model)];
  if (item.lipschitz) panels.push(constants(item.lipschitz));
  if (item.monotonicity) panels.push(trends(item.monotonicity));
  if (item.tightness) panels.push(tightnessPanel(item.tightness));
  if (item.patterns) panels.push(patternsPanel(item.patterns));
  if (item.radius) panels.push(radiusPanel(item.radius, Boolean(request?.radius?.pattern)));
  if (item.counterexample) panels.push(counterexamplePanel(item, original, label, model));
  if (item.certificate) panels.push(certificatePanel(item));
  return panels;
}

function summary(item, label, original, model) {
  return h("section", { class: "card", "aria-label": "Answer" },
    h("h3", {}, "Answer ", badge(item.verdict)),
    h("div", { class: "answer" },
      facts([
        ["Label", label],
        ["Radius ε", item.epsilon === null ? null : number(item.epsilon)],
        ["Margin", item.margin === null ? null : number(item.margin)],
        ["Method", item.method],
        ["Assurance", item.assurance],
        ["Arithmetic", item.semantics],
        ["Time", seconds(item.seconds)],
        ["Because", item.reason],
        ["Note", item.warnings.join("; ")],
      ]),
      original && !item.counterexample ? inputPicture(original, model) : null));
}

function constants(found) {
  const uppers = [found.upper].flat();
  const lowers = [found.lower].flat();
  const rows = uppers.slice(0, 50).map((upper, k) => ({ name: uppers.length > 1 ? `row ${k}` : `outputs ${found.rows}`, lower: lowers[k] ?? null, upper }));
  const norm = (name) => (name === "inf" ? "ℓ∞" : name === "each" ? "each row" : `ℓ${name}`);
  return h("section", { class: "card", "aria-label": "Lipschitz constant" },
    h("h3", {}, "Lipschitz constant"),
    h("p", { class: "words" }, `From ${norm(found.norm)} to ${norm(found.output_norm)}. Solid: a pair of inputs shows at least so much. Pale: more than that is proved impossible.`),
    spans("Between what was found and what was proved", rows, ""),
    found.gap === null ? null : h("p", { class: "hint" }, `The method's own optimum lies at most ${number(100 * found.gap)} % below.`));
}

function trends(found) {
  const rows = found.slice(0, LISTED).map((each) => [each.row, each.feature, each.trend, number(each.lower), number(each.upper)]);
  return h("section", { class: "card", "aria-label": "Monotonicity" }, h("h3", {}, "Monotonicity"),
    table("Trends", ["row", "feature", "trend", "least slope", "largest slope"], rows));
}
