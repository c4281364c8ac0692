/* A counterexample beside the input it was made from, with what changed, and what the network said. */

import { h, table } from "../dom.js";
import { number } from "../format.js";
import { picture } from "../picture.js";
import { grid, range } from "../tensor.js";

/** original: the input, flat, or null; label: the class that had to win, or null. */
export function counterexamplePanel(item, original, label, model) {
  const found = item.counterexample;
  const layout = grid(model.input_shape);
  const ends = shared(original ? [...original, ...found.input] : found.input);
  const difference = original ? found.input.map((value, k) => value - original[k]) : null;
  const pictures = [
    original ? picture("Your input", original, layout, { ends }) : null,
    picture("Counterexample", found.input, layout, { ends }),
    difference ? picture("Difference", difference, layout, { ends: difference.some(Boolean) ? undefined : [-1, 1], signed: true }) : null,
  ];
  return h("section", { class: "card", "aria-label": "Counterexample" },
    h("h3", {}, "Counterexample"),
    h("p", { class: "words" }, said(found, difference, label)),
    h("div", { class: "pictures" }, pictures),
    outputs(found.output, label));
}

/** The input of a verified item, by itself. */
export function inputPicture(values, model) {
  return h("div", { class: "pictures" }, picture("Your input", values, grid(model.input_shape), { ends: shared(values) }));
}

function shared(values) {
  const [low, high] = range(values);
  return low >= 0 && high <= 1 ? [0, 1] : [low, high > low ? high : low + 1];
}

function said(found, difference, label) {
  const winner = found.output.indexOf(Math.max(...found.output));
  const answer = found.output.length > 1 ? `onnxruntime answers class ${winner}${label === null ? "" : `, not ${label}`}.` : "onnxruntime ran it.";
  if (!difference) return `This input is in the set and its output is unsafe: ${answer}`;
  const changed = difference.filter((each) => each !== 0).length;
  const most = difference.reduce((largest, each) => Math.max(largest, Math.abs(each)), 0);
  return `${changed} of ${difference.length} values differ, by ${number(most)} at most: ${answer}`;
}

function outputs(values, label) {
  const winner = values.indexOf(Math.max(...values));
  const rows = values.slice(0, 100).map((value, k) => {
    const words = [k === label ? "label" : "", k === winner ? "wins" : ""].filter(Boolean).join(", ");
    return [k, number(value), words];
  });
  return h("details", { class: "more", open: values.length <= 10 }, h("summary", {}, "What the network says of it"), table("Outputs of the counterexample", ["output", "value", ""], rows));
}

