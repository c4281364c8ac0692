/* NumPy's .npy files, versions 1 to 3, of real numbers. */

const READERS = {
  b1: [1, (view, at) => view.getUint8(at)],
  u1: [1, (view, at) => view.getUint8(at)],
  i1: [1, (view, at) => view.getInt8(at)],
  u2: [2, (view, at, little) => view.getUint16(at, little)],
  i2: [2, (view, at, little) => view.getInt16(at, little)],
  u4: [4, (view, at, little) => view.getUint32(at, little)],
  i4: [4, (view, at, little) => view.getInt32(at, little)],
  u8: [8, (view, at, little) => Number(view.getBigUint64(at, little))],
  i8: [8, (view, at, little) => Number(view.getBigInt64(at, little))],
  f4: [4, (view, at, little) => view.getFloat32(at, little)],
  f8: [8, (view, at, little) => view.getFloat64(at, little)],
};
const MOST = 1 << 24;

/** {shape, data} of a file's bytes, data in C order.  Throws: an Error that says what is wrong. */
export function parseNpy(buffer) {
  const head = new Uint8Array(buffer, 0, Math.min(buffer.byteLength, 12));
  if (buffer.byteLength < 12 || String.fromCharCode(...head.slice(1, 6)) !== "NUMPY" || head[0] !== 0x93) {
    throw new Error("this is not a .npy file");
  }
  const view = new DataView(buffer);
  const long = head[6] >= 2;
  const start = long ? 12 : 10;
  const length = long ? view.getUint32(8, true) : view.getUint16(8, true);
  const text = new TextDecoder().decode(new Uint8Array(buffer, start, Math.min(length, buffer.byteLength - start)));
  const { order, type, fortran, shape } = header(text);
  const [size, read] = READERS[type] ?? [];
  if (!read) throw new Error(`numbers of type ${type} are not read here: save it as float32`);
  const count = shape.reduce((product, extent) => product * extent, 1);
  if (count > MOST || start + length + count * size > buffer.byteLength) throw new Error("the file is too large, or cut off");
  const data = new Float64Array(count);
  for (let k = 0; k < count; k += 1) data[k] = read(view, start + length + k * size, order !== ">");
  return { shape, data: fortran ? inCOrder(data, shape) : data };
}

/** The Python dictionary that NumPy writes. */
function header(text) {
  const descr = /'descr':\s*'([<>|=])(\w\d+)'/.exec(text);
  const order = /'fortran_order':\s*(True|False)/.exec(text);
  const shape = /'shape':\s*\(([\d\s,L]*)\)/.exec(text);
  if (!descr || !order || !shape) throw new Error("it holds no plain array of numbers");
  const extents = shape[1].split(",").map((part) => part.trim()).filter(Boolean).map(Number);
  return { order: descr[1], type: descr[2], fortran: order[1] === "True", shape: extents };
}

function inCOrder(data, shape) {
  const found = new Float64Array(data.length);
  const place = shape.map(() => 0);
  for (let k = 0; k < data.length; k += 1) {
    let at = 0;
    for (let axis = 0; axis < shape.length; axis += 1) at = at * shape[axis] + place[axis];
    found[at] = data[k];
    for (let axis = 0; axis < shape.length; axis += 1) {
      place[axis] += 1;
      if (place[axis] < shape[axis]) break;
      place[axis] = 0;
    }
  }
  return found;
}
