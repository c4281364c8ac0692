/* Step 2: one input, drawn, picked, read from a file, or written down. */

import { field, fresh, h } from "../dom.js";
import { number, numbers } from "../format.js";
import { picture } from "../picture.js";
import { extent, grid, range, squareGrid } from "../tensor.js";
import { DrawingPad } from "./draw.js";
import { arrayRows, pictureValues } from "./files.js";

/** changed(input): called with {values, label} or null whenever the choice changes. */
export class InputChoice {
  constructor(root, changed) {
    this.root = root;
    this.changed = changed;
    this.demo = null;
    this.value = null;
  }

  /** The demonstration's digits can be picked for networks of their size. */
  offer(demo) {
    this.demo = demo;
  }

  /** Begins anew for a network; an input of the same size stays. */
  of(model) {
    const before = this.value;
    this.shape = model.input_shape;
    this.size = extent(this.shape);
    this.layout = grid(this.shape);
    this.canvasLayout = this.layout ?? squareGrid(this.size);
    this.preview = h("div", { class: "preview" });
    this.words = h("p", { class: "words one-line", role: "status" });
    const sources = this.#sources();
    const name = fresh("source");
    const panel = h("div", { class: "source-panel" });
    const choose = ([, make]) => {
      this.#set(null, "");
      panel.replaceChildren(make());
    };
    const choices = sources.map((source, k) => {
      const radio = h("input", { type: "radio", name, value: source[0], checked: k === 0, onchange: () => choose(source) });
      return h("label", { class: "segment" }, radio, h("span", {}, source[0]));
    });
    this.root.replaceChildren(
      h("fieldset", { class: "segments" }, h("legend", { class: "visually-hidden" }, "Where the input comes from"), choices),
      h("div", { class: "input-body" }, panel, this.preview), this.words);
    choose(sources[0]);
    if (before?.values.length === this.size) this.#set(before.values, "", before.label);
  }

  #sources() {
    const digits = this.demo && extent(this.demo.shape) === this.size;
    const drawable = this.canvasLayout && this.canvasLayout.channels === 1;
    return [
      digits ? ["Digit", () => this.#digits()] : null,
      drawable ? ["Draw", () => this.#pad()] : null,
      this.canvasLayout ? ["Image", () => this.#image()] : null,
      [".npy", () => this.#array()],
      ["Numbers", () => this.#text()],
    ].filter(Boolean);
  }

  #set(values, words, label = null) {
    this.value = values ? { values, label } : null;
    this.words.textContent = words || (values ? this.#described(values) : "");
    this.words.classList.remove("bad");
    const layout = this.layout ?? (this.fromPicture ? this.canvasLayout : null);
    this.preview.replaceChildren(values ? picture("Chosen input", values, layout) : h("p", { class: "hint" }, "No input yet"));
    this.changed(this.value);
  }

  #described(values) {
    const [low, high] = range(values);
    return `${values.length} numbers from ${number(low)} to ${number(high)}`;
  }

  #refuse(error) {
    this.#set(null, error.message);
    this.words.classList.add("bad");
  }

  #digits() {
    this.fromPicture = true;
    const name = fresh("digit");
    const layout = this.canvasLayout;
    const choices = this.demo.digits.map((digit, k) => {
      const radio = h("input", { type: "radio", name, class: "visually-hidden", onchange: () => this.#set(digit.pixels, "", digit.label) });
      const shown = picture("", digit.pixels, layout, { ends: [0, 1] }).firstChild;
      shown.setAttribute("aria-hidden", "true");
      return h("label", { class: "digit", title: `a ${digit.label}` }, radio, shown, h("span", { class: "visually-hidden" }, `digit ${digit.label}, number ${k + 1}`));
    });
    return h("fieldset", { class: "digits" }, h("legend", { class: "visually-hidden" }, "Digits that no network was trained on"), choices);
  }

  #pad() {
    this.fromPicture = true;
    let queued = false;
    const pad = new DrawingPad(this.canvasLayout, () => {
      if (queued) return;
      queued = true;
      requestAnimationFrame(() => {
        queued = false;
        if (pad.element.isConnected) this.#set(pad.values(), "");
      });
    });
    return pad.element;
  }

  #image() {
    this.fromPicture = true;
    const file = h("input", { type: "file", accept: "image/*" });
    const white = h("select", {}, h("option", { value: "1" }, "0 to 1"), h("option", { value: "255" }, "0 to 255"));
    const read = async () => {
      if (!file.files.length) return;
      try {
        const found = await pictureValues(file.files[0], this.canvasLayout, Number(white.value));
        this.#set(found.values, found.words);
      } catch (error) {
        this.#refuse(error);
      }
    };
    file.addEventListener("change", read);
    white.addEventListener("change", read);
    return h("div", {}, field("Picture", file), field("Values", white, "as the network was trained"));
  }

  #array() {
    this.fromPicture = false;
    const file = h("input", { type: "file", accept: ".npy" });
    const index = h("input", { type: "number", min: "0", value: "0", step: "1" });
    let rows = null;
    const show = () => {
      if (!rows) return;
      const at = Number(index.value);
      if (!Number.isInteger(at) || at < 0 || at >= rows.count) return this.#refuse(new Error(`it has the numbers 0 to ${rows.count - 1}`));
      const values = rows.row(at);
      if (!values.every(Number.isFinite)) return this.#refuse(new Error("some of its numbers are not finite"));
      this.#set(values, `${rows.shape.join(" × ")}, number ${at} of ${rows.count}`);
    };
    file.addEventListener("change", async () => {
      if (!file.files.length) return;
      try {
        rows = await arrayRows(file.files[0], this.shape);
        show();
      } catch (error) {
        rows = null;
        this.#refuse(error);
      }
    });
    index.addEventListener("input", show);
    return h("div", {}, field("Array", file, `of shape ${this.shape.join(" × ")}, or several`), field("Which of them", index));
  }

  #text() {
    this.fromPicture = false;
    const text = h("textarea", { rows: "5", spellcheck: "false", placeholder: "0.1, 0.2, 8/255, …" });
    text.addEventListener("input", () => {
      try {
        const found = numbers(text.value);
        if (found.length !== this.size) throw new Error(`${found.length} of ${this.size} numbers`);
        this.#set(found, "");
      } catch (error) {
        this.#refuse(error);
      }
    });
    return h("div", {}, field(`${this.size} numbers`, text, "in C order, separated by commas, blanks or lines"));
  }
}
