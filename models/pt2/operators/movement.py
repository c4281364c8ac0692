"""Moving entries about: views, slices, joins, copies; and the batch's length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from provenn.models import onnx_shapes as shapes
from provenn.models.onnx_writer import FLOATS, Extent, Value, Writer
from provenn.models.pt2.call import Call, Held
from provenn.models.pt2.payload import TYPES

Reader = Callable[[Writer, Call], Sequence[Held]]


def view(w: Writer, call: Call) -> list[Value]:
    """The same entries in another shape."""
    return [shapes.reshape(w, call.tensor("self"), call.lengths("size"))]


def reshape(w: Writer, call: Call) -> list[Value]:
    """The same entries in another shape."""
    return [shapes.reshape(w, call.tensor("self"), call.lengths("shape"))]


def flatten(w: Writer, call: Call) -> list[Value]:
    """Some axes as one."""
    return [shapes.flatten(w, call.tensor("self"), call.integer("start_dim", 0), call.integer("end_dim", -1))]


def unflatten(w: Writer, call: Call) -> list[Value]:
    """One axis as several."""
    x, sizes = call.tensor("self"), call.lengths("sizes")
    axis = w.axis(call.integer("dim"), len(x.shape))
    return [shapes.reshape(w, x, (*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))]


def permute(w: Writer, call: Call) -> list[Value]:
    """The axes in another order."""
    return [shapes.transpose(w, call.tensor("self"), call.integers("dims"))]


def transpose(w: Writer, call: Call) -> list[Value]:
    """Two axes exchanged."""
    return [shapes.swapped(w, call.tensor("self"), call.integer("dim0"), call.integer("dim1"))]


def turned(w: Writer, call: Call) -> list[Value]:
    """A matrix with its axes exchanged; a list as it is."""
    x = call.tensor("self")
    w.require(len(x.shape) <= 2, "t() of a value with more than two axes")
    return [shapes.transpose(w, x, range(len(x.shape))[::-1])]


def unsqueeze(w: Writer, call: Call) -> list[Value]:
    """A new axis."""
    return [shapes.unsqueeze(w, call.tensor("self"), call.integer("dim"))]


def squeeze(w: Writer, call: Call) -> list[Value]:
    """Axes of length 1 away: all, or those of `dim`."""
    x = call.tensor("self")
    return [shapes.squeeze(w, x, None if "dim" not in call.node.arguments else call.integers("dim"))]


def expand(w: Writer, call: Call) -> list[Value]:
    """Axes of length 1 repeated."""
    x, size = call.tensor("self"), call.lengths("size")
    call.pass_over("implicit")
    return [shapes.expand(w, x, size, call.network_input)]


def expand_as(w: Writer, call: Call) -> list[Value]:
    """Axes of length 1 repeated as another value has them."""
    return [shapes.expand(w, call.tensor("self"), call.tensor("other").shape, call.network_input)]


def select(w: Writer, call: Call) -> list[Value]:
    """One position of an axis."""
    return [shapes.select(w, call.tensor("self"), call.integer("dim"), call.integer("index"))]


def slice_(w: Writer, call: Call) -> list[Value]:
    """Positions of an axis."""
    x, axis, step = call.tensor("self"), call.integer("dim", 0), call.integer("step", 1)
    return [shapes.cut(w, x, axis, call.position("start"), call.position("end"), step)]


def split(w: Writer, call: Call) -> list[Value]:
    """Parts of one length; the last may be shorter."""
    x, size, axis = call.tensor("self"), call.integer("split_size"), call.integer("dim", 0)
    return _parts(w, x, size, axis)


def chunk(w: Writer, call: Call) -> list[Value]:
    """At most so many parts of one length; the last may be shorter."""
    x, count, axis = call.tensor("self"), call.integer("chunks"), call.integer("dim", 0)
    w.require(x.shape and count > 0, f"{count} parts")
    length = w.within(x, w.axis(axis, len(x.shape)))
    return _parts(w, x, -(-length // count), axis)


def _parts(w: Writer, x: Value, size: int, axis: int) -> list[Value]:
    w.require(x.shape and size > 0, f"parts of {size}")
    length = w.within(x, w.axis(axis, len(x.shape)))
    whole, rest = divmod(length, size)
    w.limits.require_nodes(whole + 1)
    return shapes.parts(w, x, [size] * whole + ([rest] if rest else []), axis)


def split_with_sizes(w: Writer, call: Call) -> list[Value]:
    """Parts of given lengths."""
    return list(shapes.parts(w, call.tensor("self"), call.integers("split_sizes"), call.integer("dim", 0)))


def unbind(w: Writer, call: Call) -> list[Value]:
    """Every position of an axis."""
    x, axis = call.tensor("self"), call.integer("dim", 0)
    w.require(x.shape, "the positions of a single number")
    length = w.within(x, w.axis(axis, len(x.shape)))
    w.limits.require_nodes(length)
    return [shapes.select(w, x, axis, index) for index in range(length)]


def cat(w: Writer, call: Call) -> list[Value]:
    """One after the other along an axis."""
    return [shapes.concat(w, call.tensors("tensors"), call.integer("dim", 0))]


def stack(w: Writer, call: Call) -> list[Value]:
    """One after the other along a new axis."""
    values, axis = call.tensors("tensors"), call.integer("dim", 0)
    w.require(values, "a join of no values")
    axis = w.axis(axis, len(values[0].shape) + 1)
    return [shapes.concat(w, [shapes.unsqueeze(w, v, axis) for v in values], axis)]


def pad(w: Writer, call: Call) -> list[Value]:
    """A constant around the last axes."""
    mode = call.text("mode", "constant")
    w.require(mode == "constant", f"padding of mode {mode!r} is not read, only 'constant'")
    return [shapes.pad(w, call.tensor("self"), call.integers("pad"), call.number("value", 0.0))]


def same(w: Writer, call: Call) -> list[Value]:
    """The same numbers; where they lie in memory does not matter."""
    call.pass_over("memory_format", "implicit")
    return [call.tensor("self")]


def converted(w: Writer, call: Call) -> list[Value]:
    """The same numbers, on any device, in a float type that may be another."""
    x = call.tensor("self")
    call.pass_over("memory_format", "copy", "non_blocking", "device", "layout", "pin_memory")
    wanted = call.kind("dtype", x.type)
    kind = TYPES.get(wanted) if isinstance(wanted, int) else wanted
    if kind == x.type:
        return [x]
    if kind is None or kind not in FLOATS or x.type not in FLOATS:
        w.refuse(f"a conversion of {x.type} to type {wanted} of torch; only float32 and float64 are read")
    if x.numbers is not None:
        with np.errstate(over="ignore"):
            return [w.constant(x.numbers.astype(kind), x.name)]
    return [w.cast(x, kind)]


def length(w: Writer, call: Call) -> list[Extent]:
    """The length of an axis."""
    x = call.tensor("self")
    return [x.shape[w.axis(call.integer("dim"), len(x.shape))]]


def nothing(w: Writer, call: Call) -> list[Extent]:
    """An assertion of torch about a tensor's type, which is known here."""
    call.pass_over(*call.node.arguments)
    return []


VIEWS_TABLE: dict[str, Reader] = {
    "view.default": view,
    "_unsafe_view.default": view,
    "reshape.default": reshape,
    "flatten.using_ints": flatten,
    "unflatten.int": unflatten,
    "permute.default": permute,
    "transpose.int": transpose,
    "t.default": turned,
    "numpy_T.default": turned,
    "unsqueeze.default": unsqueeze,
    "squeeze.default": squeeze,
    "squeeze.dim": squeeze,
    "squeeze.dims": squeeze,
    "expand.default": expand,
    "expand_as.default": expand_as,
    "select.int": select,
    "slice.Tensor": slice_,
    "split.Tensor": split,
    "split_with_sizes.default": split_with_sizes,
    "chunk.default": chunk,
    "unbind.int": unbind,
    "alias.default": same,
    "contiguous.default": same,
    "detach.default": same,
    "detach_.default": same,
    "to.dtype": converted,
    "to.dtype_layout": converted,
}

TABLE: dict[str, Reader] = {
    **VIEWS_TABLE,
    "clone.default": same,
    "lift_fresh_copy.default": same,
    "_to_copy.default": converted,
    "cat.default": cat,
    "stack.default": stack,
    "pad.default": pad,
    "constant_pad_nd.default": pad,
    "sym_size.int": length,
    "_assert_tensor_metadata.default": nothing,
}

VIEWS = frozenset(VIEWS_TABLE) | {"dropout.default", "dropout_.default"}
