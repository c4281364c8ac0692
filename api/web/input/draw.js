/* A pad to draw a grey picture on, with a finger, a mouse or the arrow keys. */

import { h } from "../dom.js";

const FINE = 160;
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const KEYS = "Arrow keys move the brush, Space paints, Delete clears.";

/** Strokes are drawn finely and averaged over the cells of the network's grid. */
export class DrawingPad {
  constructor(layout, changed) {
    this.layout = layout;
    this.changed = changed;
    this.scale = Math.max(1, Math.round(FINE / Math.max(layout.height, layout.width)));
    this.cursor = [Math.floor(layout.height / 2), Math.floor(layout.width / 2)];
    this.canvas = h("canvas", { class: "pad", width: layout.width * this.scale, height: layout.height * this.scale,
      tabindex: "0", role: "application", "aria-label": `Drawing pad, ${layout.height} by ${layout.width} cells. ${KEYS}` });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.element = h("div", { class: "pad-frame" }, this.canvas,
      h("div", { class: "row" }, h("p", { class: "hint grow" }, KEYS), h("button", { type: "button", class: "button", onclick: () => this.clear() }, "Clear")));
    this.#listen();
    this.clear();
  }

  clear() {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.drawn = false;
    this.changed();
  }

  /** Numbers from 0 to 1, flat; null while nothing is drawn. */
  values() {
    if (!this.drawn) return null;
    const { height, width } = this.layout;
    const data = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height).data;
    const found = new Array(height * width).fill(0);
    for (let y = 0; y < this.canvas.height; y += 1) {
      for (let x = 0; x < this.canvas.width; x += 1) {
        found[Math.floor(y / this.scale) * width + Math.floor(x / this.scale)] += data[4 * (y * this.canvas.width + x)];
      }
    }
    return found.map((total) => Math.round((1e4 * total) / (255 * this.scale ** 2)) / 1e4);
  }

  #listen() {
    let last = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      last = this.#place(event);
      this.#stroke(last, last);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (last === null) return;
      const now = this.#place(event);
      this.#stroke(last, now);
      last = now;
    });
    for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => (last = null));
    this.canvas.addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    const [down, right] = STEPS[event.key] ?? [0, 0];
    if (down || right) {
      this.cursor = [Math.min(this.layout.height - 1, Math.max(0, this.cursor[0] + down)), Math.min(this.layout.width - 1, Math.max(0, this.cursor[1] + right))];
      this.canvas.setAttribute("aria-label", `Row ${this.cursor[0] + 1}, column ${this.cursor[1] + 1}. ${KEYS}`);
    } else if (event.key === " ") {
      const place = [(this.cursor[1] + 0.5) * this.scale, (this.cursor[0] + 0.5) * this.scale];
      this.#stroke(place, place);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
    } else return;
    event.preventDefault();
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * this.canvas.width) / box.width, ((event.clientY - box.top) * this.canvas.height) / box.height];
  }

  #stroke(from, to) {
    this.context.strokeStyle = "#fff";
    this.context.lineWidth = (1.25 * this.scale * this.layout.width) / 8;
    this.context.lineCap = "round";
    this.context.beginPath();
    this.context.moveTo(...from);
    this.context.lineTo(to[0] + 0.01, to[1]);
    this.context.stroke();
    this.drawn = true;
    this.changed();
  }
}
