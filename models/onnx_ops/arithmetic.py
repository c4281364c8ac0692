"""Sums, differences, products with constants, and sums or means over axes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce as accumulate
from math import prod

import numpy as np

from provenn.models.live_array import as_array
from provenn.models.onnx_ops.folding import whole
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value, tensor
from provenn.models.tensors import Array
from provenn.verifier.ops.arithmetic import Add, ReduceMean, ReduceSum, Scale, Sub
from provenn.verifier.ops.base import Op, Shape
from provenn.verifier.ops.shape import Expand

Rule = Callable[[Array], tuple[Array, Array]]
"""Constant c -> (weight, offset) of the map x -> weight x + offset."""

MakeReduction = Callable[[Shape, bool], Op]
"""(axes, keepdims) -> an op over node axes."""

ONE, ZERO = np.ones(()), np.zeros(())


def add(plan: Plan, node: Node) -> Sequence[Value]:
    """X + y."""
    return [added(plan, node, node.input(0), node.input(1))]


def sum_(plan: Plan, node: Node) -> Sequence[Value]:
    """x_1 + .. + x_k."""
    terms = [node.input(i) for i in range(max(len(node.inputs), 1))]
    return [accumulate(lambda x, y: added(plan, node, x, y), terms)]


def mean(plan: Plan, node: Node) -> Sequence[Value]:
    """(x_1 + .. + x_k) / k."""
    (total,) = sum_(plan, node)
    return [multiplied(plan, node, total, 1 / len(node.inputs))]


def subtract(plan: Plan, node: Node) -> Sequence[Value]:
    """X - y."""
    x, y = node.input(0), node.input(1)
    if isinstance(x, Constant) and isinstance(y, Constant):
        return [_folded(plan, node, x, y, operator.sub)]
    if isinstance(y, Constant):
        return [_scaled(plan, node, x, y, lambda c: (ONE, -c))]
    if isinstance(x, Constant):
        return [_scaled(plan, node, y, x, lambda c: (-ONE, c))]
    return [joined(plan, node, Sub(), x, y)]


def multiply(plan: Plan, node: Node) -> Sequence[Value]:
    """X y, one of them constant."""
    x, y = node.input(0), node.input(1)
    if isinstance(x, Constant) and isinstance(y, Constant):
        return [_folded(plan, node, x, y, operator.mul)]
    if not isinstance(y, Constant):
        x, y = y, x
    node.supported(isinstance(y, Constant), "both factors are computed from the input")
    assert isinstance(y, Constant)
    return [_scaled(plan, node, x, y, lambda c: (c, ZERO))]


def divide(plan: Plan, node: Node) -> Sequence[Value]:
    """X / y, y constant; whole numbers are divided towards zero."""
    x, y = node.input(0), node.constant(1, "the divisor")
    if isinstance(x, Constant):
        return [_folded(plan, node, x, y, _quotient)]
    return [_scaled(plan, node, x, y, lambda c: (_quotient(ONE, c), ZERO))]


def negate(plan: Plan, node: Node) -> Sequence[Value]:
    """-x."""
    return [multiplied(plan, node, node.input(0), -1.0)]


def added(plan: Plan, node: Node, x: Value, y: Value) -> Value:
    """X + y, either of them constant or not."""
    if isinstance(x, Constant) and isinstance(y, Constant):
        return _folded(plan, node, x, y, operator.add)
    if isinstance(x, Constant):
        x, y = y, x
    if isinstance(y, Constant):
        return _scaled(plan, node, x, y, lambda c: (ONE, c))
    return joined(plan, node, Add(), x, y)


def multiplied(plan: Plan, node: Node, x: Value, factor: float) -> Value:
    """Factor x."""
    if factor == 1:
        return x
    if isinstance(x, Constant):
        exact = factor if x.floating else int(factor)
        return plan.fold(node, [x], lambda a: whole(a * exact), x.shape, x.floating)
    return plan.emit(node, Scale(tensor(np.asarray(factor)), tensor(ZERO)), [x], x.shape, x.lead)


def batch_normalization(plan: Plan, node: Node) -> Sequence[Value]:
    """S (x - mean) + bias with s = scale / sqrt(variance + epsilon), per channel."""
    x = node.input(0)
    names = ("the scale", "the bias", "the mean", "the variance")
    parameters = [node.constant(i, name) for i, name in enumerate(names, start=1)]
    epsilon = node.attribute("epsilon", float(np.float32(1e-5)))
    node.attribute("momentum")
    node.require(epsilon >= 0, f"its epsilon is {epsilon}")
    inference = node.flag("spatial", True) and not node.flag("training_mode") and len(node.outputs) == 1
    node.supported(inference, "its training form; export the network in inference mode")
    node.require(len(x.shape) > 1, f"its input of shape {list(x.shape)} has no channels")
    channels = x.shape[1]
    for parameter, name in zip(parameters, names, strict=True):
        node.require(parameter.shape == (channels,), f"{name} must have {channels} numbers")

    def make(scale: Array, bias: Array, mean: Array, variance: Array) -> Op:
        node.require((variance + epsilon > 0).all(), "a variance is negative")
        weight = scale / np.sqrt(variance + epsilon)
        column = (channels, *(1,) * (len(x.shape) - 2))
        return Scale(tensor(weight.reshape(column)), tensor((bias - mean * weight).reshape(column)))

    return [plan.emit(node, make, [x], x.shape, x.lead, parameters)]


def reduce_sum(plan: Plan, node: Node) -> Sequence[Value]:
    """Sum over axes."""
    return reduced(plan, node, ReduceSum)


def reduce_mean(plan: Plan, node: Node) -> Sequence[Value]:
    """Mean over axes."""
    return reduced(plan, node, ReduceMean)


def global_average_pool(plan: Plan, node: Node) -> Sequence[Value]:
    """Mean over all axes but the first two."""
    x = node.input(0)
    node.require(len(x.shape) > 2, f"its input of shape {list(x.shape)} has no spatial axes")
    shape = (*x.shape[:2], *(1,) * (len(x.shape) - 2))
    return [over(plan, node, ReduceMean, x, tuple(range(2, len(x.shape))), shape)]


def reduced(plan: Plan, node: Node, kind: MakeReduction) -> Sequence[Value]:
    """An op over the axes that the node names, all of them by default; over axes of length 1 it must do nothing."""
    x, axes = node.input(0), node.listed("axes", 1)
    keep, noop = node.flag("keepdims", True), node.flag("noop_with_empty_axes")
    rank = len(x.shape)
    if not axes:
        if noop:
            return [x]
        axes = tuple(range(rank))
    gone = {node.axis(a, rank) for a in axes}
    shape = tuple(1 if a in gone else n for a, n in enumerate(x.shape) if keep or a not in gone)
    return [over(plan, node, kind, x, tuple(sorted(gone)), shape)]


def over(plan: Plan, node: Node, kind: MakeReduction, x: Value, axes: Shape, shape: Shape) -> Value:
    """The axes of length 1 need no sum; the others are summed and then dropped by a change of shape."""
    long = tuple(a for a in axes if x.shape[a] > 1)
    if not long:
        return plan.view(node, x, shape)
    kept = tuple(1 if a in long else n for a, n in enumerate(x.shape))
    op = kind(tuple(a - 1 for a in long) if x.lead else long, True)
    return plan.view(node, plan.emit(node, op, [x], kept, x.lead), shape)


def joined(plan: Plan, node: Node, op: Op, x: Value, y: Value) -> Value:
    """An op of two variables with numpy broadcasting."""
    shape = _broadcast(node, x, y)
    lead = len(shape) > 1 and shape[0] == 1 and (x.lead or y.lead)
    # A value with fewer axes than the result is aligned from the right whichever way it is held.
    held = [v if lead and len(v.shape) < len(shape) else plan.held(node, v, lead) for v in (x, y)]
    return plan.emit(node, op, held, shape, lead)


def _scaled(plan: Plan, node: Node, x: Value, constant: Constant, rule: Rule) -> Value:
    """Weight x + offset, the two made of the constant; x is first repeated to the result's shape."""
    shape = _broadcast(node, x, constant)
    node.require(constant.floating, "a computed tensor meets a constant of whole numbers")
    x = expanded(plan, node, x, shape)
    dropped = 1 if x.lead and len(constant.shape) == len(shape) else 0

    def make(array: Array) -> Op:
        weight, offset = rule(array.reshape(constant.shape[dropped:]))
        return Scale(tensor(weight), tensor(offset))

    return plan.emit(node, make, [x], shape, x.lead, [constant])


def expanded(plan: Plan, node: Node, x: Value, shape: Shape) -> Value:
    """X repeated along its axes of length 1, or along new ones in front, until it has `shape`."""
    if x.shape == shape:
        return x
    if prod(x.shape) == prod(shape):
        return plan.view(node, x, shape)
    lead = x.lead and len(x.shape) == len(shape) and shape[0] == 1
    x = plan.held(node, x, lead)
    return plan.emit(node, Expand(shape[1:] if lead else shape), [x], shape, lead)


def _folded(plan: Plan, node: Node, x: Constant, y: Constant, function: Callable[[Array, Array], Array]) -> Constant:
    node.require(x.floating == y.floating, "its constants have different types")
    return plan.fold(node, [x, y], lambda a, b: whole(as_array(function(a, b))), _broadcast(node, x, y), x.floating)


def _quotient(a: Array, b: Array) -> Array:
    """A / b; truncated for whole numbers.   Raises: ZeroDivisionError."""
    if not np.all(b):
        raise ZeroDivisionError("division by zero")
    if a.dtype.kind == "f":
        return as_array(a / b)
    return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)))


def _broadcast(node: Node, x: Value, y: Value) -> Shape:
    fits = all(1 in pair or pair[0] == pair[1] for pair in zip(reversed(x.shape), reversed(y.shape), strict=False))
    node.require(fits, f"shapes {list(x.shape)} and {list(y.shape)} do not fit each other")
    return np.broadcast_shapes(x.shape, y.shape)
