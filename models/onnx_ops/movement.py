"""Operators that move, select, repeat or join elements."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Literal

import numpy as np

from provenn.models.onnx_ops.arithmetic import ONE, expanded
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value, Variable, tensor
from provenn.models.onnx_ops.rearranging import rearranged
from provenn.models.tensors import Array
from provenn.verifier.ops.arithmetic import Scale
from provenn.verifier.ops.base import Op, Shape
from provenn.verifier.ops.shape import Concat, Pad, Select, Transpose

PADDINGS: dict[str, Literal["constant", "reflect", "edge", "wrap"]] = {
    "constant": "constant",
    "reflect": "reflect",
    "edge": "edge",
    "wrap": "wrap",
}
"""ONNX's names of what is padded -> numpy's."""


def flatten(plan: Plan, node: Node) -> Sequence[Value]:
    """The axes before `axis`, and the rest, each as one."""
    x, axis = node.input(0), node.attribute("axis", 1)
    rank = len(x.shape)
    node.require(-rank <= axis <= rank, f"axis {axis} does not exist in a tensor with {rank} axes")
    axis = axis + rank if axis < 0 else axis
    return [plan.view(node, x, (prod(x.shape[:axis]), prod(x.shape[axis:])))]


def reshape(plan: Plan, node: Node) -> Sequence[Value]:
    """0 keeps an extent (unless allowzero), one -1 is what is left."""
    x, target = node.input(0), list(node.integers(1, "the shape"))
    if not node.flag("allowzero"):
        present = all(n != 0 or i < len(x.shape) for i, n in enumerate(target))
        node.require(present, f"shape {target} keeps an axis that its input does not have")
        target = [x.shape[i] if n == 0 else n for i, n in enumerate(target)]
    node.require(min(target, default=1) >= -1 and target.count(-1) <= 1, f"shape {target} is not one")
    rest = prod(n for n in target if n != -1)
    if -1 in target:
        node.require(rest > 0 and prod(x.shape) % rest == 0, f"{list(x.shape)} does not divide into {target}")
    return [plan.view(node, x, tuple(prod(x.shape) // rest if n == -1 else n for n in target))]


def squeeze(plan: Plan, node: Node) -> Sequence[Value]:
    """Axes of length 1 removed, all of them by default."""
    x, listed = node.input(0), node.listed("axes", 1)
    node.supported(listed is None or len(listed) > 0, "an empty list of axes, which runtimes take for all axes")
    rank = len(x.shape)
    ones = [a for a, n in enumerate(x.shape) if n == 1]
    gone = set(ones) if listed is None else {node.axis(a, rank) for a in listed}
    node.require(gone <= set(ones), f"axes {sorted(gone)} of shape {list(x.shape)} are not all of length 1")
    return [plan.view(node, x, tuple(n for a, n in enumerate(x.shape) if a not in gone))]


def unsqueeze(plan: Plan, node: Node) -> Sequence[Value]:
    """Axes of length 1 put in."""
    x, listed = node.input(0), node.listed("axes", 1)
    node.require(listed, "it has no axes")
    rank = len(x.shape) + len(listed or ())
    new = {node.axis(a, rank) for a in listed or ()}
    node.require(len(new) == len(listed or ()), f"axes {list(listed or ())} name one axis twice")
    rest = iter(x.shape)
    return [plan.view(node, x, tuple(1 if a in new else next(rest) for a in range(rank)))]


def transpose(plan: Plan, node: Node) -> Sequence[Value]:
    """Axes permuted, reversed by default; moving axes of length 1 past others is only a change of shape."""
    x = node.input(0)
    rank = len(x.shape)
    order = tuple(node.attribute("perm") or reversed(range(rank)))
    node.require(sorted(order) == list(range(rank)), f"perm {list(order)} does not permute {rank} axes")
    return [transposed(plan, node, x, order)]


def transposed(plan: Plan, node: Node, x: Value, order: Shape) -> Value:
    """X with axis i of the result being its axis order[i]."""
    shape = tuple(x.shape[a] for a in order)
    long = [a for a in order if x.shape[a] != 1]
    if long == sorted(long):
        return plan.view(node, x, shape)
    if not x.lead:
        return plan.emit(node, Transpose(order), [x], shape, False)
    rest = [a for a in order if a != 0]
    moved = plan.emit(node, Transpose(tuple(a - 1 for a in rest)), [x], (1, *(x.shape[a] for a in rest)), True)
    return moved if order[0] == 0 else plan.view(node, moved, shape)


def expand(plan: Plan, node: Node) -> Sequence[Value]:
    """Repeated along axes of length 1, of either side."""
    x, target = node.input(0), node.integers(1, "the shape")
    plan.limits.require_elements(target, f"node '{node.name}': its shape")
    node.require(min(target, default=1) > 0, f"shape {list(target)} is not one")
    return [expanded(plan, node, x, np.broadcast_shapes(x.shape, target))]


def split(plan: Plan, node: Node) -> Sequence[Value]:
    """Consecutive pieces: of the listed lengths, or equal ones (the last of num_outputs may be shorter)."""
    x, count = node.input(0), node.attribute("num_outputs")
    axis, lengths = node.axis(node.attribute("axis", 0), len(x.shape)), node.listed("split", 1)
    extent, outputs = x.shape[axis], len(node.outputs)
    # onnxruntime crashes on an unnamed one.
    node.require(all(node.outputs), "an output has no name; name every one, read or not")
    if lengths is None:
        node.require(count in (None, outputs) and outputs <= extent, f"{count} outputs of {extent} elements")
        node.require(count is not None or extent % outputs == 0, f"{extent} does not divide by {outputs}")
        each = -(-extent // outputs)
        lengths = tuple(min(each, extent - each * i) for i in range(outputs))
    fits = sum(lengths) == extent and len(lengths) == outputs and min(lengths) > 0
    node.require(fits, f"lengths {list(lengths)} of {outputs} outputs do not make up {extent}")
    starts = np.cumsum([0, *lengths]).tolist()
    return [selected(plan, node, x, axis, range(a, b)) for a, b in pairwise(starts)]


def slice_(plan: Plan, node: Node) -> Sequence[Value]:
    """From start to end (clamped) by step, along each listed axis; steps may be negative."""
    x = node.input(0)
    starts, ends = node.listed("starts", 1), node.listed("ends", 2)
    axes, steps = node.listed("axes", 3), None if node.given(4) is None else node.integers(4, "steps")
    node.require(starts is not None and ends is not None, "it has no starts or no ends")
    assert starts is not None
    assert ends is not None
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    node.require(len(starts) == len(ends) == len(axes) == len(steps), "starts, ends, axes and steps differ in length")
    named = [node.axis(a, len(x.shape)) for a in axes]
    node.require(len(set(named)) == len(named) and 0 not in steps, "an axis is sliced twice, or by steps of 0")
    for axis, start, end, step in zip(named, starts, ends, steps, strict=True):
        indices = range(*slice(start, end, step).indices(x.shape[axis]))
        node.require(len(indices) > 0, f"nothing is left of axis {axis} between {start} and {end}")
        x = selected(plan, node, x, axis, indices)
    return [x]


def gather(plan: Plan, node: Node) -> Sequence[Value]:
    """The elements at constant indices of one axis; negative ones count from the end."""
    x, where = node.input(0), node.constant(1, "the indices")
    axis = node.axis(node.attribute("axis", 0), len(x.shape))
    extent, indices = x.shape[axis], node.integers(1, "the indices")
    node.require(indices and all(-extent <= i < extent for i in indices), f"an index lies outside {extent} elements")
    taken = selected(plan, node, x, axis, [i % extent for i in indices])
    return [plan.view(node, taken, (*x.shape[:axis], *where.shape, *x.shape[axis + 1 :]))]


def selected(plan: Plan, node: Node, x: Value, axis: int, indices: Sequence[int]) -> Value:
    """The elements at `indices` of one axis."""
    whole = range(x.shape[axis])
    if len(indices) == len(whole) and (indices == whole or (not isinstance(indices, range) and indices == list(whole))):
        return x
    plan.require_indices(node, len(indices))
    x = plan.held(node, x, x.lead and axis > 0)
    shape = (*x.shape[:axis], len(indices), *x.shape[axis + 1 :])
    return plan.emit(node, Select(axis - x.lead, tuple(indices)), [x], shape, x.lead)


def pad(plan: Plan, node: Node) -> Sequence[Value]:
    """A constant around each axis; negative pads crop."""
    x, mode = node.input(0), node.attribute("mode", "constant")
    rank = len(x.shape)
    node.supported(mode in PADDINGS, f"mode '{mode}'; known: {', '.join(PADDINGS)}")
    pads, value = node.listed("pads", 1), node.number("value", 2) or 0.0
    axes = tuple(range(rank)) if node.given(3) is None else node.integers(3, "axes")
    node.require(pads is not None and len(pads) == 2 * len(axes), "pads do not fit the axes")
    assert pads is not None
    named = [node.axis(a, rank) for a in axes]
    node.require(len(set(named)) == len(named), f"axes {list(axes)} name one axis twice")
    begin, end = [0] * rank, [0] * rank
    for i, axis in enumerate(named):
        begin[axis], end[axis] = pads[i], pads[i + len(axes)]
    node.require(all(n + min(b, e, b + e) > 0 for n, b, e in zip(x.shape, begin, end, strict=True)), "nothing is left")
    if mode == "constant":
        return [framed(plan, node, x, begin, end, value)]
    node.supported(min(*begin, *end, 0) >= 0, f"negative pads in mode '{mode}'")
    longest = [n - 1 if mode == "reflect" else n for n in x.shape]
    fits = mode == "edge" or all(max(b, e) <= n for b, e, n in zip(begin, end, longest, strict=True))
    node.supported(fits, f"pads {list(pads)} longer than shape {list(x.shape)} in mode '{mode}'")
    around = list(zip(begin, end, strict=True))
    shape = tuple(n + b + e for n, b, e in zip(x.shape, begin, end, strict=True))
    return [rearranged(plan, node, [x], shape, lambda a: np.pad(a, around, PADDINGS[mode]))]


def framed(plan: Plan, node: Node, x: Value, begin: Sequence[int], end: Sequence[int], value: float) -> Value:
    """X within a frame of `value`: `begin` and `end` elements for each axis."""
    if not any(begin) and not any(end):
        return x
    x = plan.held(node, x, x.lead and not begin[0] and not end[0])
    shape = tuple(n + b + e for n, b, e in zip(x.shape, begin, end, strict=True))
    return plan.emit(node, Pad((*begin[x.lead :], *end[x.lead :]), value), [x], shape, x.lead)


def center_crop_pad(plan: Plan, node: Node) -> Sequence[Value]:
    """Cropped, or framed with zeros, to the lengths listed: both ends alike, an odd cell at the far end."""
    x, lengths, axes = node.input(0), node.integers(1, "the shape"), node.attribute("axes")
    rank = len(x.shape)
    named = [node.axis(a, rank) for a in (range(rank) if axes is None else axes)]
    fits = len(lengths) == len(named) == len(set(named)) and min(lengths, default=1) > 0
    node.require(fits, f"lengths {list(lengths)} do not fit axes {named} of shape {list(x.shape)}")
    begin, end = [0] * rank, [0] * rank
    for axis, length in zip(named, lengths, strict=True):
        more = length - x.shape[axis]
        begin[axis] = more // 2 if more > 0 else -(-more // 2)
        end[axis] = more - begin[axis]
    return [framed(plan, node, x, begin, end, 0.0)]


def concat(plan: Plan, node: Node) -> Sequence[Value]:
    """One after the other along an axis; constants become an offset on variables padded with zeros."""
    parts = [node.input(i) for i in range(max(len(node.inputs), 1))]
    rank = len(parts[0].shape)
    axis = node.axis(node.attribute("axis", 0), rank)
    others = {(*p.shape[:axis], *p.shape[axis + 1 :]) for p in parts}
    node.require(len(others) == 1 and all(len(p.shape) == rank for p in parts), "its inputs' shapes do not fit")
    shape = (*parts[0].shape[:axis], sum(p.shape[axis] for p in parts), *parts[0].shape[axis + 1 :])
    constants = [p for p in parts if isinstance(p, Constant)]
    if len(constants) == len(parts):
        node.require(len({c.floating for c in constants}) == 1, "its constants have different types")
        return [plan.fold(node, constants, lambda *a: np.concatenate(a, axis), shape, constants[0].floating)]
    lead = axis > 0 and any(isinstance(p, Variable) and p.lead for p in parts)
    joined = _joined(plan, node, [p if isinstance(p, Constant) else plan.held(node, p, lead) for p in parts], axis)
    if not constants:
        return [joined]
    node.require(all(c.floating for c in constants), "a computed tensor meets a constant of whole numbers")
    starts = np.cumsum([0, *(p.shape[axis] for p in parts)]).tolist()
    places = [start for start, part in zip(starts, parts, strict=False) if isinstance(part, Constant)]

    def make(*arrays: Array) -> Op:
        return Scale(tensor(ONE), tensor(_placed(shape, axis, places, arrays).reshape(joined.held_shape)))

    return [plan.emit(node, make, [joined], shape, joined.lead, constants)]


def _joined(plan: Plan, node: Node, parts: Sequence[Value], axis: int) -> Value:
    """The variables among the parts, one after the other, zeros in the place of the constants."""
    pieces: list[Value] = []
    gap = 0
    last = max(i for i, p in enumerate(parts) if not isinstance(p, Constant))
    trailing = sum(p.shape[axis] for p in parts[last + 1 :])
    for index, part in enumerate(parts[: last + 1]):
        if isinstance(part, Constant):
            gap += part.shape[axis]
            continue
        begin, end = [0] * len(part.shape), [0] * len(part.shape)
        begin[axis], end[axis] = gap, trailing if index == last else 0
        pieces.append(framed(plan, node, part, begin, end, 0.0))
        gap = 0
    if len(pieces) == 1:
        return pieces[0]
    first = pieces[0]
    shape = (*first.shape[:axis], sum(p.shape[axis] for p in pieces), *first.shape[axis + 1 :])
    return plan.emit(node, Concat(axis - first.lead), pieces, shape, first.lead)


def _placed(shape: Shape, axis: int, places: Sequence[int], arrays: Sequence[Array]) -> Array:
    """Zeros of `shape` with the arrays at their places along the axis."""
    whole = np.zeros(shape)
    for place, array in zip(places, arrays, strict=True):
        whole[(slice(None),) * axis + (slice(place, place + array.shape[axis]),)] = array
    return whole


def depth_to_space(plan: Plan, node: Node) -> Sequence[Value]:
    """Blocks of channels laid out as squares of cells: mode DCR or CRD.   Source: ONNX DepthToSpace-13."""
    (batch, channels, height, width), side = _square(node, node.input(0)), node.attribute("blocksize", 0)
    mode = node.attribute("mode", "DCR")
    node.supported(mode in ("DCR", "CRD"), f"mode '{mode}'")
    node.require(side > 0 and channels % (side * side) == 0, f"{channels} channels do not fill squares of side {side}")
    depth = channels // (side * side)
    split = (batch, side, side, depth, height, width) if mode == "DCR" else (batch, depth, side, side, height, width)
    order = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
    apart = transposed(plan, node, plan.view(node, node.input(0), split), order)
    return [plan.view(node, apart, (batch, depth, height * side, width * side))]


def space_to_depth(plan: Plan, node: Node) -> Sequence[Value]:
    """Squares of cells laid out as channels."""
    (batch, channels, height, width), side = _square(node, node.input(0)), node.attribute("blocksize", 0)
    fits = side > 0 and height % side == 0 and width % side == 0
    node.require(fits, f"{height} x {width} cells do not divide into squares of side {side}")
    split = (batch, channels, height // side, side, width // side, side)
    apart = transposed(plan, node, plan.view(node, node.input(0), split), (0, 3, 5, 1, 2, 4))
    return [plan.view(node, apart, (batch, channels * side * side, height // side, width // side))]


def _square(node: Node, x: Value) -> Shape:
    node.require(len(x.shape) == 4, f"its input of shape {list(x.shape)} does not have 4 axes")
    return x.shape
