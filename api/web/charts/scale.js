/* From numbers to places on a chart. */

/** Round numbers that cover [low, high], about `count` of them. */
export function ticks(low, high, count = 5) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * span; k += 1) found.push(Number((k * step).toPrecision(12)));
  return found;
}

/** Where a number of [low, high] lies in [from, to]. */
export function linear([low, high], [from, to]) {
  const span = high - low || 1;
  return (value) => from + ((value - low) / span) * (to - from);
}

/** The numbers' ends with some room, zero among them if asked for. */
export function domain(values, { zero = false, room = 0.06 } = {}) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of zero ? [0, ...values] : values) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  if (low > high) return [0, 1];
  if (low === high && zero && low === 0) return [0, 1];
  if (low === high) return low === 0 ? [-0.5, 0.5] : [low - Math.abs(low) / 2, high + Math.abs(high) / 2];
  const more = room * (high - low);
  return [zero && low === 0 ? 0 : low - more, zero && high === 0 ? 0 : high + more];
}
