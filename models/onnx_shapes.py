"""Moving entries about as torch does, written in ONNX: reshapes, transposes, slices, joins. Constants move at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from provenn.models.onnx_writer import BATCH, RANK, Extent, Extents, Value, Writer, elements, shown

ENDLESS = 2**63 - 1
"""torch's "to the end" of a slice."""


def reshape(w: Writer, x: Value, target: Sequence[Extent]) -> Value:
    """The same entries in order; -1 stands for the length that is left, BATCH for the batch."""
    shape = _resolved(w, x, target)
    if shape == x.shape:
        return x
    if x.numbers is not None:
        return w.constant(x.numbers.reshape([n for n in shape if isinstance(n, int)]), x.name)
    return w.node("Reshape", [x, w.integers([-1 if isinstance(n, str) else n for n in shape])], shape)


def _resolved(w: Writer, x: Value, target: Sequence[Extent]) -> Extents:
    """The target with its -1 found."""
    shape, batched = tuple(target), BATCH in x.shape
    w.require(len(shape) <= RANK, f"a value with {len(shape)} axes; at most {RANK} are read")
    refusal = f"{shown(x.shape)} has no form {shown(shape[:8])}"
    w.require(all(isinstance(n, str) or n > 0 or n == -1 for n in shape) and shape.count(-1) <= 1, refusal)
    w.require(shape.count(BATCH) <= int(batched), refusal)
    known = elements(n for n in shape if n != -1)
    if -1 in shape:
        rest: Extent = BATCH if batched and BATCH not in shape and known == x.each else x.each // known
        w.require(rest == BATCH or x.each % known == 0, refusal)
        shape = tuple(rest if n == -1 else n for n in shape)
    w.require(elements(shape) == x.each and (BATCH in shape) == batched, refusal)
    return shape


def flatten(w: Writer, x: Value, first: int, last: int) -> Value:
    """Axes `first` to `last` as one; a single number becomes a list of one."""
    if not x.shape:
        return reshape(w, x, (1,))
    rank = len(x.shape)
    first, last = w.axis(first, rank), w.axis(last, rank)
    w.require(first <= last, f"flattening axes {first} to {last}")
    part = x.shape[first : last + 1]
    length: Extent = BATCH if part[0] == BATCH and elements(part) == 1 else elements(part)
    return reshape(w, x, (*x.shape[:first], length, *x.shape[last + 1 :]))


def transpose(w: Writer, x: Value, order: Sequence[int]) -> Value:
    """Axis i of the result is axis order[i]."""
    rank = len(x.shape)
    order = [w.axis(axis, rank) for axis in order]
    w.require(sorted(order) == list(range(rank)), f"axes {order[:8]} of a value with {rank}")
    if order == list(range(rank)):
        return x
    if x.numbers is not None:
        return w.constant(x.numbers.transpose(order), x.name)
    return w.node("Transpose", [x], tuple(x.shape[axis] for axis in order), perm=order)


def swapped(w: Writer, x: Value, first: int, second: int) -> Value:
    """Two axes exchanged."""
    order = list(range(len(x.shape)))
    if order:
        first, second = w.axis(first, len(order)), w.axis(second, len(order))
        order[first], order[second] = second, first
    return transpose(w, x, order)


def unsqueeze(w: Writer, x: Value, axis: int) -> Value:
    """A new axis of length 1."""
    axis = w.axis(axis, len(x.shape) + 1)
    return reshape(w, x, (*x.shape[:axis], 1, *x.shape[axis:]))


def squeeze(w: Writer, x: Value, axes: Sequence[int] | None) -> Value:
    """Without those of the axes (None: of all) that have length 1."""
    gone = range(len(x.shape)) if axes is None else w.axes(axes, len(x.shape)) if x.shape else ()
    return reshape(w, x, tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in gone))


def select(w: Writer, x: Value, axis: int, index: int) -> Value:
    """One position of an axis, which goes."""
    w.require(x.shape, "an entry of a single number")
    axis = w.axis(axis, len(x.shape))
    length = w.within(x, axis)
    w.require(-length <= index < length, f"position {index} of {length}")
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    if x.numbers is not None:
        return w.constant(np.asarray(x.numbers.take(index % length, axis)), x.name)
    place = Value("index", (), np.dtype(np.int64), np.array(index % length))
    return w.node("Gather", [x, place], shape, axis=axis)


def cut(w: Writer, x: Value, axis: int, start: int | None, end: int | None, step: int = 1) -> Value:
    """Positions start, start + step, .. before `end` of an axis, as Python slices; of the batch only all."""
    w.require(x.shape, "a slice of a single number")
    axis = w.axis(axis, len(x.shape))
    start, end = 0 if start is None else start, ENDLESS if end is None else end
    if (start, end, step) == (0, ENDLESS, 1):
        return x
    length = w.within(x, axis)
    w.require(step >= 1, f"a slice in steps of {step}")
    taken = range(length)[start:end:step]
    w.require(len(taken), f"a slice {start}:{end} of {length} positions is empty")
    if len(taken) == length:
        return x
    shape = tuple(len(taken) if i == axis else n for i, n in enumerate(x.shape))
    if x.numbers is not None:
        where = (slice(None),) * axis + (slice(taken.start, taken.stop, step),)
        return w.constant(x.numbers[where], x.name)
    places = [[taken.start], [taken.stop], [axis], [taken.step]]
    return w.node("Slice", [x, *map(w.integers, places)], shape)


def parts(w: Writer, x: Value, sizes: Sequence[int], axis: int) -> list[Value]:
    """Consecutive parts along an axis, of these lengths."""
    w.require(x.shape, "parts of a single number")
    axis = w.axis(axis, len(x.shape))
    length = w.within(x, axis)
    w.require(all(n > 0 for n in sizes) and sum(sizes) == length, f"{length} positions in parts of {list(sizes)[:8]}")
    ends = np.cumsum(sizes).tolist()
    return [cut(w, x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]


def concat(w: Writer, values: Sequence[Value], axis: int) -> Value:
    """The values one after the other along an axis."""
    w.require(values and values[0].shape, "a join of no values, or of single numbers")
    axis = w.axis(axis, len(values[0].shape))
    rests = {(*v.shape[:axis], *v.shape[axis + 1 :]) for v in values if len(v.shape) == len(values[0].shape)}
    same = len(rests) == 1 and all(len(v.shape) == len(values[0].shape) for v in values)
    w.require(same, f"shapes {', '.join(shown(v.shape) for v in values[:4])} do not fit together")
    length = sum(w.within(v, axis) for v in values)
    shape = (*values[0].shape[:axis], length, *values[0].shape[axis + 1 :])
    if len(values) == 1:
        return values[0]
    numbers = [v.numbers for v in values if v.numbers is not None]
    if len(numbers) == len(values) and len({n.dtype for n in numbers}) == 1:
        w.sound(shape)
        return w.constant(np.concatenate(numbers, axis), values[0].name)
    return w.node("Concat", values, shape, axis=axis)


def expand(w: Writer, x: Value, target: Sequence[Extent], network_input: Value) -> Value:
    """Axes of length 1 repeated, new ones in front; -1 keeps an axis. The batch is that of the network's input."""
    fresh = len(target) - len(x.shape)
    w.require(fresh >= 0 and -1 not in target[: max(fresh, 0)], f"{shown(x.shape)} as {shown(target[:8])}")
    old = (1,) * fresh + x.shape
    shape = tuple(o if n == -1 else n for o, n in zip(old, target, strict=True))
    w.require(all(o in (1, n) for o, n in zip(old, shape, strict=True)), f"{shown(x.shape)} as {shown(shape[:8])}")
    if shape == x.shape:
        return x
    fixed = [n for n in shape if isinstance(n, int)]
    w.sound(shape)
    if x.numbers is not None and BATCH not in shape:
        return w.constant(np.broadcast_to(x.numbers, fixed), x.name)
    if BATCH not in shape or old[0] == BATCH:
        return w.node("Expand", [x, w.integers([1 if isinstance(n, str) else n for n in shape])], shape)
    lengths = [w.batch(network_input)] + ([w.integers(fixed)] if fixed else [])
    return w.node("Expand", [x, w.lengths(lengths)], shape)


def pad(w: Writer, x: Value, pads: Sequence[int], value: float) -> Value:
    """Cells of a constant around the last axes: pads (before, after) of the last, then of the one before it, .."""
    rank, count = len(x.shape), len(pads) // 2
    w.require(len(pads) % 2 == 0 and count <= rank, f"{len(pads)} pads for a value with {rank} axes")
    before, after = [0] * rank, [0] * rank
    for i in range(count):
        before[rank - 1 - i], after[rank - 1 - i] = pads[2 * i : 2 * i + 2]
    if not any(pads):
        return x
    touched = [i for i in range(rank) if before[i] or after[i]]
    lengths = {i: w.within(x, i) + before[i] + after[i] for i in touched}
    whole = all(w.within(x, i) + min(before[i], 0) + min(after[i], 0) > 0 for i in touched)
    w.require(whole, f"pads {list(pads)[:8]} would crop everything")
    shape = tuple(lengths.get(i, n) for i, n in enumerate(x.shape))
    return w.node("Pad", [x, w.integers([*before, *after]), w.scalar(value, x)], shape)
