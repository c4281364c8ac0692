"""Operators whose result holds cells of their inputs at places known beforehand.

Each is one function of arrays. Applied to the numbers of the cells it says where the cells of the result come from;
applied to constants it computes the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import torch

from provenn.models.live_array import as_array
from provenn.models.onnx_ops.arithmetic import ONE, added, over
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value, Variable, tensor
from provenn.models.tensors import Array
from provenn.verifier.ops.arithmetic import ReduceSum, Scale
from provenn.verifier.ops.base import Op, Shape
from provenn.verifier.ops.pick import Pick, Places

Move = Callable[..., Array]
"""Arrays -> an array of some of their cells; -1 among numbered cells stands for a zero."""


def rearranged(plan: Plan, node: Node, parts: Sequence[Value], shape: Shape, move: Move) -> Value:
    """The value of `move` over the parts, of `shape`; cells of constants become an offset on zeros.

    Raises: ResourceLimit before anything is numbered, if there are too many cells.
    """
    plan.require_indices(node, sum(prod(p.shape) for p in parts) + prod(shape))
    starts = np.cumsum([0, *(prod(p.shape) for p in parts)]).tolist()
    numbered = [np.arange(s, s + prod(p.shape)).reshape(p.shape) for s, p in zip(starts, parts, strict=False)]
    places = np.asarray(move(*numbered))
    node.require(places.shape == shape, f"its result has shape {list(places.shape)}, not {list(shape)}")
    constants = [p for p in parts if isinstance(p, Constant)]
    if len(constants) == len(parts):
        node.require(len({c.floating for c in constants}) == 1, "its constants have different types")
        return plan.fold(node, constants, lambda *a: as_array(move(*a)), shape, constants[0].floating)
    node.require(all(c.floating for c in constants), "a computed tensor meets a constant of whole numbers")
    # Cells of variables are numbered one after the other, cells of constants are zeros.
    order = np.full(starts[-1] + 1, -1)
    variables = [(s, p) for s, p in zip(starts, parts, strict=False) if isinstance(p, Variable)]
    size = 0
    for start, part in variables:
        order[start : start + prod(part.shape)] = np.arange(size, size + prod(part.shape))
        size += prod(part.shape)
    picked = _picked(plan, node, [v for _, v in variables], order[places], size)
    fixed = [(s, c) for s, c in zip(starts, parts, strict=False) if isinstance(c, Constant)]
    return _shifted(plan, node, picked, places, fixed)


def _picked(plan: Plan, node: Node, variables: Sequence[Value], places: Array, size: int) -> Value:
    """The cells of the variables at `places`; no op where nothing moves."""
    shape, lead = places.shape, len(places.shape) > 1 and places.shape[0] == 1
    if len(variables) == 1 and places.size == size and np.array_equal(places.ravel(), np.arange(size)):
        return plan.view(node, variables[0], shape)

    def make() -> Op:
        held = places[0] if lead else places
        return Pick(Places.of(torch.from_numpy(np.ascontiguousarray(held)), size))

    return plan.emit(node, make, variables, shape, lead)


def _shifted(plan: Plan, node: Node, x: Value, places: Array, fixed: Sequence[tuple[int, Constant]]) -> Value:
    """X plus the cells of the constants (each with its first number) that `places` names; zeros elsewhere."""
    used = [(s, c) for s, c in fixed if ((places >= s) & (places < s + prod(c.shape))).any()]
    if not used:
        return x

    def make(*arrays: Array) -> Op:
        offset = np.zeros(x.shape)
        for (start, _), array in zip(used, arrays, strict=True):
            inside = (places >= start) & (places < start + array.size)
            offset[inside] = array.ravel()[places[inside] - start]
        return Scale(tensor(ONE), tensor(offset.reshape(x.held_shape)))

    return plan.emit(node, make, [x], x.shape, x.lead, [c for _, c in used])


def tile(plan: Plan, node: Node) -> Sequence[Value]:
    """Repeated a number of times along each axis."""
    x, repeats = node.input(0), node.integers(1, "the repeats")
    fits = len(repeats) == len(x.shape) and min(repeats, default=1) > 0
    node.require(fits, f"repeats {list(repeats)} do not fit shape {list(x.shape)}")
    shape = tuple(n * r for n, r in zip(x.shape, repeats, strict=True))
    return [rearranged(plan, node, [x], shape, lambda a: np.tile(a, repeats))]


def gather_elements(plan: Plan, node: Node) -> Sequence[Value]:
    """x[.., indices[j], ..] along one axis, for every place j of the indices."""
    x, where = node.input(0), node.constant(1, "the indices")
    axis = node.axis(node.attribute("axis", 0), len(x.shape))
    indices = _indices(node, 1, where.shape, x.shape[axis])
    fits = len(where.shape) == len(x.shape) and all(
        n <= m for a, (n, m) in enumerate(zip(where.shape, x.shape, strict=True)) if a != axis
    )
    node.require(fits, f"indices of shape {list(where.shape)} do not fit shape {list(x.shape)}")
    return [rearranged(plan, node, [x], where.shape, lambda a: a[_grid(indices, axis)])]


def gather_nd(plan: Plan, node: Node) -> Sequence[Value]:
    """x[indices[j]], the last axis of the indices being a place in x (behind `batch_dims` common axes)."""
    x, where = node.input(0), node.constant(1, "the indices")
    common = node.attribute("batch_dims", 0)
    node.require(0 <= common < min(len(x.shape), len(where.shape)), f"batch_dims {common} has too many axes")
    node.require(x.shape[:common] == where.shape[:common], "the common axes differ")
    index = _tuples(node, 1, where.shape, x.shape[common:])
    # A first index for every common axis lets one look-up serve all of them.
    ahead = np.indices(where.shape[:-1])[:common]
    place = (*ahead, *np.moveaxis(index, -1, 0))
    shape = (*where.shape[:-1], *x.shape[common + where.shape[-1] :])
    return [rearranged(plan, node, [x], shape, lambda a: a[place])]


def scatter_elements(plan: Plan, node: Node) -> Sequence[Value]:
    """X with the updates written, or added, to x[.., indices[j], ..] along one axis."""
    x, where, updates = node.input(0), node.constant(1, "the indices"), node.input(2)
    axis = node.axis(node.attribute("axis", 0), len(x.shape))
    indices = _indices(node, 1, where.shape, x.shape[axis])
    fits = len(where.shape) == len(x.shape) and where.shape == updates.shape
    fits = fits and all(n <= m for a, (n, m) in enumerate(zip(where.shape, x.shape, strict=True)) if a != axis)
    node.require(fits, f"indices of shape {list(where.shape)} do not fit shape {list(x.shape)} and their updates")
    return [_written(plan, node, x, updates, _grid(indices, axis))]


def scatter_nd(plan: Plan, node: Node) -> Sequence[Value]:
    """X with the updates written, or added, to x[indices[j]]."""
    x, where, updates = node.input(0), node.constant(1, "the indices"), node.input(2)
    index = _tuples(node, 1, where.shape, x.shape)
    fits = updates.shape == (*where.shape[:-1], *x.shape[where.shape[-1] :])
    node.require(fits, f"updates of shape {list(updates.shape)} do not fit indices of shape {list(where.shape)}")
    return [_written(plan, node, x, updates, tuple(np.moveaxis(index, -1, 0)))]


def compress(plan: Plan, node: Node) -> Sequence[Value]:
    """The slices of an axis (of the flat input, if none is given) at which a constant condition holds."""
    x, condition = node.input(0), np.array(node.integers(1, "the condition"), dtype=bool)
    given = node.attribute("axis")
    axis = None if given is None else node.axis(given, len(x.shape))
    extent = prod(x.shape) if axis is None else x.shape[axis]
    node.require(condition.any() and len(condition) <= extent, f"the condition does not choose among {extent} slices")
    kept = int(condition.sum())
    shape = (kept,) if axis is None else (*x.shape[:axis], kept, *x.shape[axis + 1 :])
    return [rearranged(plan, node, [x], shape, lambda a: np.compress(condition, a, axis))]


def reverse_sequence(plan: Plan, node: Node) -> Sequence[Value]:
    """The first lengths[i] steps of every sequence i backwards, the rest as it is."""
    x, lengths = node.input(0), node.integers(1, "the lengths")
    time, batch = node.attribute("time_axis", 0), node.attribute("batch_axis", 1)
    node.require(len(x.shape) > 1 and {time, batch} == {0, 1}, "its axes must be the first two")
    fits = len(lengths) == x.shape[batch] and all(0 <= n <= x.shape[time] for n in lengths)
    node.require(fits, f"lengths {list(lengths)} do not fit shape {list(x.shape)}")

    def move(a: Array) -> Array:
        b = np.moveaxis(a, batch, 0).copy()
        for i, n in enumerate(lengths):
            b[i, :n] = b[i, :n][::-1]
        return np.moveaxis(b, 0, batch)

    return [rearranged(plan, node, [x], x.shape, move)]


def _written(plan: Plan, node: Node, x: Value, updates: Value, place: tuple[Array, ...]) -> Value:
    reduction = node.attribute("reduction", "none")
    node.supported(reduction in ("none", "add"), f"reduction '{reduction}'")
    turn = _turns(np.stack(place, -1).reshape(-1, len(place))).reshape(place[0].shape)
    if reduction == "add":
        return added(plan, node, x, _layered(plan, node, updates, (turn, *place), x.shape))
    node.supported(not turn.any(), "several updates of one element")

    def move(a: Array, b: Array) -> Array:
        a = a.copy()
        a[place] = b
        return a

    return rearranged(plan, node, [x, updates], x.shape, move)


def _layered(plan: Plan, node: Node, updates: Value, place: tuple[Array, ...], shape: Shape) -> Value:
    """The sum of layers of zeros, of `shape` each, with the updates at their places in them."""
    node.supported(not isinstance(updates, Constant) or updates.floating, "sums of whole numbers")
    layers = (int(place[0].max()) + 1, *shape)

    def move(a: Array) -> Array:
        whole = np.full(layers, 0 if a.dtype.kind == "f" else -1, dtype=a.dtype)
        whole[place] = a
        return whole

    return over(plan, node, ReduceSum, rearranged(plan, node, [updates], layers, move), (0,), shape)


def _turns(rows: Array) -> Array:
    """How many rows before each are equal to it."""
    _, same, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(same.ravel(), kind="stable")
    turns = np.empty(len(rows), dtype=np.int64)
    turns[order] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return turns


def _indices(node: Node, position: int, shape: Shape, extent: int) -> Array:
    """Whole numbers in [-extent, extent), counted from the front, of the constant's shape."""
    values = np.array(node.integers(position, "the indices"), dtype=np.int64).reshape(shape)
    inside = values.size > 0 and -extent <= values.min() and values.max() < extent
    node.require(inside, f"an index lies outside {extent} elements")
    return values % extent


def _tuples(node: Node, position: int, shape: Shape, extents: Shape) -> Array:
    """Places [.., axes] in an array of `extents`, counted from the front."""
    values = np.array(node.integers(position, "the indices"), dtype=np.int64).reshape(shape)
    node.require(shape and 0 < shape[-1] <= len(extents), f"indices of shape {list(shape)} name too many axes")
    limits = np.array(extents[: shape[-1]])
    inside = values.size > 0 and (values >= -limits).all() and (values < limits).all()
    node.require(inside, f"an index lies outside {list(extents)}")
    return np.asarray(values % limits)


def _grid(indices: Array, axis: int) -> tuple[Array, ...]:
    """The place of every index: itself along the axis, where it stands along the others."""
    standing: list[Array] = list(np.indices(indices.shape))
    return (*standing[:axis], indices, *standing[axis + 1 :])
