/* What a network is: its size, its layers, and the methods there are for it. */

import { backends } from "../api.js";
import { facts, h, table } from "../dom.js";
import { bytes, moment, shape, short, whole } from "../format.js";

const SHOWN = 200;

/** Elements about an admitted network. */
export function describe(model) {
  const methods = h("details", { class: "more" }, h("summary", {}, "Methods that can take it here"));
  methods.addEventListener("toggle", () => methods.open && methods.childElementCount === 1 && listMethods(methods), { once: true });
  return [
    h("h3", { class: "model-name" }, model.filename),
    facts([
      ["Input", shape(model.input_shape)],
      ["Output", shape(model.output_shape)],
      ["Parameters", whole(model.parameters)],
      ["Neurons", whole(model.neurons)],
      ["File", `${model.format}, ${bytes(model.bytes)}`],
      ["Made by", model.producer || "unknown"],
      ["SHA-256", h("code", { title: model.id }, `${short(model.id)}…`)],
      ["Uploaded", moment(model.created_at)],
    ]),
    h("details", { class: "more", open: model.layers.length <= 12 }, h("summary", {}, `${model.layers.length} layers`), layers(model)),
    methods,
  ];
}

function layers(model) {
  const rows = model.layers.slice(0, SHOWN).map((each) => [each.name, each.op, shape(each.shape), whole(each.parameters)]);
  const heads = ["name", "operator", "shape", "parameters"];
  const more = model.layers.length > SHOWN ? h("p", { class: "hint" }, `and ${model.layers.length - SHOWN} more`) : null;
  return [table("Layers", heads, rows), more];
}

async function listMethods(into) {
  const rows = (await backends()).map((each) => [
    h("strong", {}, each.name),
    each.status === "available" ? "yes" : each.status,
    each.norms.map((norm) => (norm === "inf" ? "ℓ∞" : `ℓ${norm}`)).join(", "),
    each.verdicts.filter((verdict) => verdict === "verified" || verdict === "falsified").join(", "),
    each.gpu ? "yes" : "no",
    each.summary,
  ]);
  into.append(table("Methods", ["method", "available", "norms", "can answer", "GPU", "what it does"], rows));
}
