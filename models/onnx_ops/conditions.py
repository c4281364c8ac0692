"""Operators that are read on constants alone: what exporters compute shapes, indices and masks with."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import numpy as np

from provenn.models.onnx_ops.folding import whole
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value, Variable
from provenn.models.tensors import FLOATS, STORED, Array, type_name

Function = Callable[..., Array]
Reader = Callable[[Plan, Node], Sequence[Value]]


def _read(plan: Plan, node: Node, function: Function, truth: bool) -> Sequence[Value]:
    """The function of constants, with numpy broadcasting; truth: whether it says 0 or 1."""
    sources = [node.constant(i, "an operand") for i in range(len(node.inputs))]
    node.require(len({c.floating for c in sources}) == 1, "its constants have different types")
    shape = np.broadcast_shapes(*(c.shape for c in sources))

    def compute(*arrays: Array) -> Array:
        value = np.asarray(function(*arrays))
        return value.astype(np.int64) if truth else whole(value)

    return [plan.fold(node, sources, compute, shape, sources[0].floating and not truth)]


def said(function: Function) -> Reader:
    """The reader of an operator that compares constants, element by element."""
    return partial(_read, function=function, truth=True)


equal, less, greater = said(operator.eq), said(operator.lt), said(operator.gt)
less_or_equal, greater_or_equal = said(operator.le), said(operator.ge)
not_, and_, or_, xor = said(np.logical_not), said(np.logical_and), said(np.logical_or), said(np.logical_xor)


def modulo(plan: Plan, node: Node) -> Sequence[Value]:
    """The remainder: of the divisor's sign, or of the dividend's with fmod."""
    truncated = node.flag("fmod")

    def remainder(a: Array, b: Array) -> Array:
        if not np.all(b):
            raise ZeroDivisionError("division by zero")
        return np.asarray(np.fmod(a, b) if truncated else np.mod(a, b))

    return _read(plan, node, remainder, False)


def size(plan: Plan, node: Node) -> Sequence[Value]:
    """How many elements there are at batch 1."""
    return [plan.stored(node.name, np.asarray(prod(node.input(0).shape), dtype=np.int64))]


def range_(plan: Plan, node: Node) -> Sequence[Value]:
    """Numbers from start up to limit (excluded), delta apart."""
    start, limit, delta = (node.constant(i, "a limit of the range") for i in range(3))
    ends = [np.asarray(c.known).ravel() for c in (start, limit, delta) if c.known is not None and prod(c.shape) == 1]
    node.require(len(ends) == 3 and len({c.floating for c in (start, limit, delta)}) == 1, "it needs three numbers")
    node.require(ends[2].any(), "its delta is 0")
    span = plan.fold(node, [start, limit], lambda a, b: whole(b.reshape(()) - a.reshape(())), (), start.floating)
    steps = plan.fold(node, [span, delta], lambda a, b: np.ceil(a / b.reshape(())).astype(np.int64), (), False)
    count = int(np.asarray(steps.known))
    node.require(count > 0, "it is empty")

    def numbers(a: Array, b: Array) -> Array:
        exact = a.reshape(()) + b.reshape(()) * np.arange(count, dtype=a.dtype)
        if start.floating:
            single = np.add.accumulate(np.append(a, np.full(count - 1, b)).astype(np.float32))
            node.supported(np.array_equal(single, exact), "numbers that float32, which adds them up, rounds")
        return whole(np.asarray(exact))

    return [plan.fold(node, [start, delta], numbers, (count,), start.floating)]


def non_zero(plan: Plan, node: Node) -> Sequence[Value]:
    """Places of the elements that are not zero: one column each."""
    x = node.constant(0, "its input")
    places = plan.agreed(node, x, lambda a: np.array(np.nonzero(np.atleast_1d(a)), dtype=np.int64))
    node.require(places.size, "nothing is left")
    return [plan.stored(node.name, places)]


def eye_like(plan: Plan, node: Node) -> Sequence[Value]:
    """Ones on a diagonal of a matrix of the input's shape."""
    x, shift, kind = node.input(0), node.attribute("k", 0), node.attribute("dtype")
    node.require(len(x.shape) == 2, f"its input of shape {list(x.shape)} is no matrix")
    node.supported(kind is None or kind in STORED, f"element type {type_name(kind or 0)}")
    alike = isinstance(x, Variable) or (isinstance(x, Constant) and x.floating)
    floating = alike if kind is None else kind in FLOATS
    rows, columns = x.shape
    number: type[np.generic] = np.float64 if floating else np.int64
    return [plan.fold(node, [], lambda: np.eye(rows, columns, shift, dtype=number), x.shape, floating)]
