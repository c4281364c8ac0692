/* How an input's flat numbers lie on a grid of pixels, if they do. */

/** {height, width, channels, at(y, x, c)} of [C, H, W], [H, W] or [H, W, C] with 1 or 3 channels; null for others. */
export function grid(shape) {
  const sizes = shape.filter((extent, axis) => extent !== 1 || axis >= shape.length - 2);
  if (sizes.length === 2 && sizes[0] > 1 && sizes[1] > 1) return grey(sizes[0], sizes[1]);
  if (sizes.length !== 3) return null;
  if (sizes[0] === 3) return planes(3, sizes[1], sizes[2]);
  if (sizes[2] === 3 || sizes[2] === 1) return interleaved(sizes[0], sizes[1], sizes[2]);
  return null;
}

/** The same for a picture's pixels in a row: 64 numbers may be 8 by 8. */
export function squareGrid(count) {
  const side = Math.round(Math.sqrt(count));
  return side * side === count && side >= 7 ? grey(side, side) : null;
}

function grey(height, width) {
  return { height, width, channels: 1, at: (y, x) => y * width + x };
}

function planes(channels, height, width) {
  return { height, width, channels, at: (y, x, c) => (c * height + y) * width + x };
}

function interleaved(height, width, channels) {
  return { height, width, channels, at: (y, x, c) => (y * width + x) * channels + c };
}

export function extent(shape) {
  return shape.reduce((product, each) => product * each, 1);
}

export function range(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}
