/* Inputs from files: pictures, which the browser decodes, and NumPy arrays. */

import { parseNpy } from "../npy.js";
import { extent } from "../tensor.js";

const GREY = [0.299, 0.587, 0.114];

/** A picture in the network's grid: {values, words}; values from 0 to `white`.  Throws: an Error for other files. */
export async function pictureValues(file, layout, white) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} is no picture that this browser reads`);
  }
  const canvas = document.createElement("canvas");
  canvas.width = layout.width;
  canvas.height = layout.height;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, layout.width, layout.height);
  const data = context.getImageData(0, 0, layout.width, layout.height).data;
  const values = new Array(layout.width * layout.height * layout.channels);
  for (let y = 0; y < layout.height; y += 1) {
    for (let x = 0; x < layout.width; x += 1) {
      const at = 4 * (y * layout.width + x);
      const colour = [data[at], data[at + 1], data[at + 2]];
      const grey = colour.reduce((sum, each, c) => sum + GREY[c] * each, 0);
      for (let c = 0; c < layout.channels; c += 1) {
        values[layout.at(y, x, c)] = ((layout.channels === 1 ? grey : colour[c]) * white) / 255;
      }
    }
  }
  const same = bitmap.width === layout.width && bitmap.height === layout.height;
  const words = same ? `${bitmap.width} × ${bitmap.height}, as it is` : `scaled from ${bitmap.width} × ${bitmap.height} to ${layout.width} × ${layout.height}`;
  return { values, words };
}

/** The inputs in a .npy file: {shape, rows}, each a function of its number.  Throws: an Error if they do not fit. */
export async function arrayRows(file, shape) {
  const { shape: found, data } = parseNpy(await file.arrayBuffer());
  const size = extent(shape);
  if (data.length === 0 || data.length % size !== 0) {
    throw new Error(`it has shape ${found.join(" × ") || "()"}: the network takes ${shape.join(" × ")}, or several of these`);
  }
  const row = (index) => Array.from(data.subarray(index * size, (index + 1) * size));
  return { shape: found, count: data.length / size, row };
}
