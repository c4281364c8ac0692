/* Step 3: what must hold, and how hard to try. Makes the body of POST /v1/jobs. */

import { uploadData } from "../api.js";
import { field, fresh, h, refill, select } from "../dom.js";
import { numbers } from "../format.js";
import { extent, grid } from "../tensor.js";

const KINDS = [["inputs", "Robust around the input"], ["specification", "Property"], ["lipschitz", "Lipschitz constant"], ["batch", "Many inputs"]];
const NORMS = [["inf", "ℓ∞: each value by ε"], ["2", "ℓ2"], ["1", "ℓ1"]];
const LIPSCHITZ = ["auto", "norm-product", "eclipse-fast", "lipsdp-layer", "lipsdp-neuron", "lipsdp-channel", "lipsdp-conic", "crown", "alpha-crown", "recurjac", "ibp", "bab"];

export class Question {
  constructor(form, submit) {
    this.form = form;
    this.kind = "inputs";
    this.methods = [["auto", "auto"]];
    this.model = null;
    this.input = null;
    this.#build(submit);
  }

  /** Methods as GET /v1/backends lists them. */
  know(backends) {
    this.methods = backends.map((each) => [each.name, each.status === "available" ? each.name : `${each.name} (${each.status})`]);
    this.#offerMethods();
  }

  of(model) {
    this.model = model;
    const classes = Array.from({ length: Math.min(1000, extent(model.output_shape)) }, (_, k) => [`${k}`, `${k}`]);
    refill(this.label, classes);
    refill(this.target, [["", "any other class"], ...classes]);
    const image = grid(model.input_shape) !== null;
    this.clipped.checked = image;
    this.#ready();
  }

  choose(input) {
    this.input = input;
    if (input?.label !== null && input?.label !== undefined) this.label.value = `${input.label}`;
    this.#ready();
  }

  /** Networks to compare with, as [id, name]. */
  others(models) {
    refill(this.other, [["", "nothing"], ...models]);
  }

  /** The request; data go first, and it has their name.  Throws: an Error that says what is missing; Problem. */
  async request() {
    if (!this.model) throw new Error("Choose a network first.");
    const body = {
      model: this.model.id,
      method: this.method.value,
      budget: { seconds: positive(this.seconds.value, "seconds") },
      certificates: this.certificates.checked,
      cache: !this.anew.checked,
      [this.kind]: await this[`_${this.kind}`](),
    };
    return this.kind === "lipschitz" ? body : { ...body, semantics: this.semantics.value };
  }

  _inputs() {
    const target = this.target.value === "" ? null : Number(this.target.value);
    const epsilons = numbers(this.epsilons.value);
    if (!epsilons.length) throw new Error("Give a radius.");
    return { inputs: [this.#values()], labels: [Number(this.label.value)], epsilons, norm: this.norm.value, clip: this.#clip(), target };
  }

  _specification() {
    if (!this.text.value.trim()) throw new Error("Write a property, or open a file.");
    return this.text.value;
  }

  _lipschitz() {
    const asked = { norm: this.inward.value, output_norm: this.outward.value || null, rows: this.rows.value.trim() || "all" };
    if (!this.around.checked) return asked;
    const [epsilon] = numbers(this.radius.value);
    return { ...asked, region: { input: this.#values(), epsilon, norm: this.norm.value, clip: this.#clip() } };
  }

  async _batch() {
    if (!this.data.files.length) throw new Error("Choose a data set first.");
    const radii = this.several.value.split(",").map((each) => each.trim()).filter(Boolean);
    if (!radii.length) throw new Error("Give a radius.");
    const about = { norm: this.norm.value, clip: this.#clip() };
    const asked = this.sought.value === "largest" ? { largest: positive(radii[0], "radius") } : { epsilons: radii };
    return { dataset: (await uploadData(this.data.files[0])).id, ...asked, ...about };
  }

  #values() {
    if (!this.input) throw new Error("Choose an input first.");
    return this.input.values;
  }

  #clip() {
    if (!this.clipped.checked) return null;
    const ends = [...numbers(this.low.value), ...numbers(this.high.value)];
    if (ends.length !== 2 || ends[0] >= ends[1]) throw new Error("The range of values needs a lower and an upper end.");
    return ends;
  }

  #build(submit) {
    this.label = select([["0", "0"]]);
    this.target = select([["", "any other class"]]);
    this.epsilons = text("0.03", "decimal");
    this.norm = select(NORMS);
    this.clipped = checkbox(false);
    this.low = text("0", "decimal");
    this.high = text("1", "decimal");
    this.text = h("textarea", { rows: "8", spellcheck: "false", placeholder: "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(assert (>= X_0 -1.0))\n…" });
    this.inward = select([["2", "ℓ2"], ["inf", "ℓ∞"], ["1", "ℓ1"]]);
    this.outward = select([["", "ℓ2, or each pair"], ["2", "ℓ2"], ["inf", "ℓ∞"], ["1", "ℓ1"], ["each", "each row by itself"]]);
    this.rows = text("all", "text");
    this.around = checkbox(false);
    this.radius = text("0.1", "decimal");
    this.data = h("input", { type: "file", accept: ".npz" });
    this.sought = select([["epsilons", "a verdict at each radius"], ["largest", "the radius of each, up to"]]);
    this.several = text("0.01, 0.03", "text");
    this.distance = field("Distance", this.norm);
    this.within = this.#range();
    this.method = select(this.methods);
    this.seconds = text("30", "decimal");
    this.semantics = select([["real", "real arithmetic"], ["float32", "every float32 execution"]]);
    this.certificates = checkbox(true);
    this.anew = checkbox(false);
    this.other = select([["", "nothing"]]);
    this.words = h("p", { class: "words one-line grow", role: "status" });
    this.button = h("button", { type: "submit", class: "button primary" }, "Prove it");
    this.parts = { inputs: this.#inputs(), specification: this.#specification(), lipschitz: this.#lipschitz(), batch: this.#batch() };
    this.body = h("div", { class: "question-body" });
    this.form.append(this.#kinds(), this.body, this.#common(), h("div", { class: "row" }, this.words, this.button));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit();
    });
    this.#show("inputs");
  }

  #kinds() {
    const name = fresh("kind");
    return h("fieldset", { class: "segments" }, h("legend", { class: "visually-hidden" }, "What to ask"), KINDS.map(([kind, words]) =>
      h("label", { class: "segment" }, h("input", { type: "radio", name, value: kind, checked: kind === "inputs", onchange: () => this.#show(kind) }), h("span", {}, words))));
  }

  #inputs() {
    return [
      field("Class that must win", this.label),
      field("Radius ε", this.epsilons, "several give a curve: 0.01, 0.03, 8/255"),
      this.distance,
      this.within,
      field("Against", this.target),
    ];
  }

  #specification() {
    const file = h("input", { type: "file", accept: ".vnnlib,.txt,.json,.toml" });
    file.addEventListener("change", async () => {
      if (file.files.length) this.text.value = await file.files[0].text();
    });
    return [h("div", { class: "span-all" }, field("VNN-LIB, or a specification document in JSON or TOML", this.text)), field("or a file", file)];
  }

  #lipschitz() {
    return [
      field("Distance of inputs", this.inward),
      field("Distance of outputs", this.outward),
      field("Outputs", this.rows, "all, 3, 0,2 or pairs:3"),
      h("div", { class: "field" }, h("label", { class: "check" }, this.around, "Only around the input, within ε"), this.radius),
    ];
  }

  #batch() {
    return [
      field("Data set", this.data, "an .npz file: arrays x and y, perhaps names"),
      field("Sought", this.sought),
      field("Radii ε", this.several, "several: 0.01, 0.03, 8/255"),
      this.distance,
      this.within,
    ];
  }

  #range() {
    this.low.setAttribute("aria-label", "least value");
    this.high.setAttribute("aria-label", "largest value");
    return h("div", { class: "field" }, h("label", { class: "check" }, this.clipped, "Values stay within"),
      h("div", { class: "pair" }, this.low, h("span", { "aria-hidden": "true" }, "to"), this.high));
  }

  #common() {
    this.radius.setAttribute("aria-label", "radius around the input");
    return h("div", { class: "fields common" },
      field("Method", this.method), field("Seconds at most", this.seconds), field("About", this.semantics), field("Compare with", this.other),
      h("div", { class: "field checks" },
        h("label", { class: "check" }, this.certificates, "Make certificates"),
        h("label", { class: "check" }, this.anew, "Compute anew, even if it was proved before")));
  }

  #show(kind) {
    this.kind = kind;
    this.body.replaceChildren(h("div", { class: "fields" }, this.parts[kind]));
    this.#offerMethods();
    this.#ready();
  }

  #offerMethods() {
    const names = this.kind === "lipschitz" ? LIPSCHITZ.map((each) => [each, each]) : this.methods;
    const more = this.kind === "inputs" ? [["lipschitz", "lipschitz"]] : [];
    refill(this.method, [...names, ...more]);
  }

  #ready() {
    const first = this.kind === "batch" ? "A network comes first." : "A network and an input come first.";
    const needs = !this.model ? first : this.kind === "inputs" && !this.input ? "Choose an input." : "";
    this.words.textContent = needs;
  }
}

function text(value, mode) {
  return h("input", { type: "text", value, inputmode: mode, autocomplete: "off", spellcheck: "false" });
}

function checkbox(checked) {
  return h("input", { type: "checkbox", checked });
}

function positive(value, name) {
  const found = Number(value);
  if (!(found > 0)) throw new Error(`${name}: give a number above 0.`);
  return found;
}
