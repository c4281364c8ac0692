/* Numbers as people read them. */

const FEW = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const WHOLE = new Intl.NumberFormat("en");

/** Four digits, a true minus. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : FEW.format(value);
  return text.replace("-", "−").replace("e-", "e−").replace("e+", "e");
}

export function whole(value) {
  return value === null || value === undefined ? "–" : WHOLE.format(value);
}

export function bytes(size) {
  const units = ["bytes", "KB", "MB", "GB"];
  let unit = 0;
  let value = size;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${FEW.format(Number(value.toPrecision(3)))} ${units[unit]}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1) return `${Math.max(1, Math.round(1000 * value))} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

export function shape(extents) {
  return extents.length ? extents.join(" × ") : "a number";
}

export function short(digest) {
  return digest.slice(0, 10);
}

export function moment(text) {
  return new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

export function percent(share) {
  return `${(100 * share).toFixed(share === 1 || share === 0 ? 0 : 1)} %`;
}

/** "0.03, 8/255" as numbers.  Throws: an Error that says which is none. */
export function numbers(text) {
  const parts = text.split(/[\s,;]+/).filter(Boolean);
  return parts.map((part) => {
    const [over, under] = part.split("/");
    const value = under === undefined ? Number(over) : Number(over) / Number(under);
    if (!Number.isFinite(value) || part.split("/").length > 2) throw new Error(`“${part}” is not a number`);
    return value;
  });
}
