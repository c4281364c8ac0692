/* An input as a picture where it is one, as bars where it is not; its numbers as a table for who cannot see it. */

import { fresh, h, s } from "./dom.js";
import { number } from "./format.js";
import { range } from "./tensor.js";

const LISTED = 1024;
const BARS = 256;

/** A figure of values. layout: a grid or null; ends: the values of black and white; signed: a difference, around 0. */
export function picture(title, values, layout, { ends, signed = false } = {}) {
  const [low, high] = ends ?? widened(range(values));
  const shown = layout ? pixels(values, layout, [low, high], signed) : bars(values, [Math.min(0, low), Math.max(0, high)]);
  const id = fresh("picture");
  const words = `${title}: ${described(values, layout)}`;
  shown.setAttribute("role", "img");
  shown.setAttribute("aria-label", words);
  return h("figure", { class: "picture", "aria-labelledby": id },
    shown, h("figcaption", { id }, title), values.length <= LISTED ? numbers(title, values, layout) : null);
}

function described(values, layout) {
  const [low, high] = range(values);
  const size = layout ? `${layout.height} by ${layout.width} pixels` : `${values.length} numbers`;
  return `${size} from ${number(low)} to ${number(high)}`;
}

function widened([low, high]) {
  return high > low ? [low, high] : [low - 0.5, high + 0.5];
}

function pixels(values, layout, ends, signed) {
  const canvas = h("canvas", { width: layout.width, height: layout.height, class: "pixels" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(layout.width, layout.height);
  const paint = signed ? diverging(values) : (value) => 255 * clamp((value - ends[0]) / (ends[1] - ends[0]));
  for (let y = 0; y < layout.height; y += 1) {
    for (let x = 0; x < layout.width; x += 1) {
      const at = 4 * (y * layout.width + x);
      const colour = [0, 1, 2].map((c) => values[layout.at(y, x, Math.min(c, layout.channels - 1))]);
      const painted = signed ? paint(colour) : colour.map(paint);
      image.data.set([...painted, 255], at);
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Larger than before towards one colour, smaller towards another, the same nearly white. */
function diverging(values) {
  const largest = Math.max(1e-12, ...range(values).map(Math.abs));
  const [none, more, less] = [[246, 246, 244], [31, 111, 92], [178, 64, 32]];
  return (colour) => {
    const value = colour.reduce((most, each) => (Math.abs(each) > Math.abs(most) ? each : most), 0) / largest;
    const end = value > 0 ? more : less;
    return none.map((from, c) => from + (end[c] - from) * Math.abs(value));
  };
}

function clamp(share) {
  return Math.min(1, Math.max(0, share));
}

function bars(values, [low, high]) {
  const shown = values.length > BARS ? values.slice(0, BARS) : values;
  const zero = high / (high - low || 1);
  const drawn = Array.from(shown, (value, k) => {
    const top = (high - Math.max(0, value)) / (high - low || 1);
    const size = Math.abs(value) / (high - low || 1);
    return s("rect", { x: k + 0.1, width: 0.8, y: 60 * top, height: Math.max(0.3, 60 * size), class: value < 0 ? "less" : "more" });
  });
  const line = s("line", { x1: 0, x2: shown.length, y1: 60 * zero, y2: 60 * zero, class: "axis" });
  return s("svg", { viewBox: `0 0 ${shown.length} 60`, preserveAspectRatio: "none", class: "bars" }, drawn, line);
}

function numbers(title, values, layout) {
  const width = layout ? layout.width : 8;
  const rows = [];
  for (let k = 0; k < values.length; k += width) rows.push(Array.from(values.slice(k, k + width), number));
  const details = h("details", { class: "numbers" }, h("summary", {}, "Numbers"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.querySelector("table")) return;
    const body = h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell)))));
    const caption = h("caption", { class: "visually-hidden" }, `${title}, row by row`);
    details.append(h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title}, numbers` }, h("table", {}, caption, body)));
  });
  return details;
}
