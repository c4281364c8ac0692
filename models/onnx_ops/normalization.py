"""Normalization: ONNX's operators for it, and the nodes that exporters write instead.

Both become the nodes of `provenn.verifier.ops.normalization`. Written out, a root of a mean of squares is recognised
where the root is read, a value divided by its own one where the product is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from provenn.models.onnx_ops import arithmetic
from provenn.models.onnx_ops.arithmetic import added, joined
from provenn.models.onnx_ops.plan import Node, Plan, Value, Variable, op_of
from provenn.verifier.ops.arithmetic import ReduceMean, Scale
from provenn.verifier.ops.base import Shape
from provenn.verifier.ops.centre import Centre
from provenn.verifier.ops.normalization import Normalize
from provenn.verifier.ops.power import Pow, Reciprocal, Sqrt
from provenn.verifier.ops.product import Multiply
from provenn.verifier.ops.root_mean_square import RootMeanSquare

Reader = Callable[[Plan, Node], Sequence[Value]]


def layer_normalization(plan: Plan, node: Node) -> Sequence[Value]:
    """(x - mean) / sqrt(variance + epsilon) scale + bias over the last axes."""
    return [_last_axes(plan, node, True)]


def rms_normalization(plan: Plan, node: Node) -> Sequence[Value]:
    """X / sqrt(mean of squares + epsilon) scale over the last axes."""
    return [_last_axes(plan, node, False)]


def instance_normalization(plan: Plan, node: Node) -> Sequence[Value]:
    """Every channel over its spatial axes."""
    x = node.input(0)
    node.require(len(x.shape) > 2, f"its input of shape {list(x.shape)} has no spatial axes")
    value = over_root(plan, node, x, tuple(range(2, len(x.shape))), _epsilon(node), True)
    return [_per_channel(plan, node, value)]


def group_normalization(plan: Plan, node: Node) -> Sequence[Value]:
    """Groups of channels over their cells; the form before opset 21 is deprecated, and ONNX's checker refuses it."""
    x, groups = node.input(0), node.attribute("num_groups")
    node.attribute("stash_type")
    fits = len(x.shape) > 1 and groups and groups > 0 and x.shape[1] % groups == 0
    node.require(fits, f"{groups} groups of the channels of shape {list(x.shape)}")
    apart = plan.view(node, x, (x.shape[0], groups, prod(x.shape[1:]) // groups))
    value = over_root(plan, node, apart, (2,), _epsilon(node), True)
    return [_per_channel(plan, node, plan.view(node, value, x.shape))]


def root(reader: Reader) -> Reader:
    """The reader of square roots, where that of a mean of squares plus epsilon is one function."""

    def read(plan: Plan, node: Node) -> Sequence[Value]:
        x = node.input(0)
        found = _mean_of_squares(plan, x) if isinstance(x, Variable) else None
        if found is None:
            return reader(plan, node)
        op, source = found
        return [plan.emit(node, op, [replace(x, step=source)], x.shape, x.lead)]

    return read


def difference(reader: Reader) -> Reader:
    """The reader of differences, where a value without its mean is one function."""

    def read(plan: Plan, node: Node) -> Sequence[Value]:
        x, y = node.input(0), node.input(1)
        if isinstance(x, Variable) and isinstance(y, Variable) and x.lead == y.lead and len(x.shape) == len(y.shape):
            op, source = op_of(plan, y.step)
            if type(op) is ReduceMean and op.keepdims and source == x.step:
                return [plan.emit(node, Centre(op.axes), [x], x.shape, x.lead)]
        return reader(plan, node)

    return read


def under_root(plan: Plan, x: Variable) -> Variable | None:
    """What a square root is taken of, if x is one."""
    op, source = op_of(plan, x.step)
    return replace(x, step=source) if isinstance(op, Sqrt) else None


def over_own_root(plan: Plan, node: Node, x: Variable, factor: Variable) -> Value | None:
    """X times the factor, if that is the reciprocal of x's own root of a mean of squares."""
    op, source = op_of(plan, factor.step)
    found, own = op_of(plan, source) if isinstance(op, Reciprocal) else (None, -1)
    if (
        not isinstance(found, RootMeanSquare)
        or own != x.step
        or x.lead != factor.lead
        or len(x.shape) != len(factor.shape)
    ):
        return None
    return _normalize(plan, node, x, factor, found)


def over_root(plan: Plan, node: Node, x: Value, axes: Shape, epsilon: float, centred: bool) -> Value:
    """X, centred or not, over its root of the mean of squares along ONNX axes."""
    x = plan.held(node, x, x.lead and 0 not in axes)
    own = tuple(axis - x.lead for axis in axes)
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    if centred:
        x = plan.emit(node, Centre(own), [x], x.shape, x.lead)
    op = RootMeanSquare(own, epsilon)
    rms = plan.emit(node, op, [x], shape, x.lead)
    inverse = plan.emit(node, Reciprocal(), [rms], shape, x.lead)
    if not (isinstance(x, Variable) and isinstance(inverse, Variable)):
        return arithmetic.multiply(plan, replace(node, inputs=(x, inverse)))[0]
    return _normalize(plan, node, x, inverse, op)


def _normalize(plan: Plan, node: Node, x: Variable, inverse: Variable, op: RootMeanSquare) -> Value:
    """The product, which knows what it is; over sets of one cell, which say nothing more, a plain one."""
    before, _ = op_of(plan, x.step)
    count = prod(x.held_shape[axis] for axis in op.axes)
    if count == 1:
        return joined(plan, node, Multiply(), x, inverse)
    centred = isinstance(before, Centre) and set(before.axes) == set(op.axes)
    return plan.emit(node, Normalize(op.axes, op.epsilon, centred), [x, inverse], x.shape, x.lead)


def _last_axes(plan: Plan, node: Node, centred: bool) -> Value:
    x = node.input(0)
    axis = node.axis(node.attribute("axis", -1), len(x.shape))
    node.attribute("stash_type")
    node.supported(not any(node.outputs[1:]), "its mean and deviation as outputs; export the network in inference mode")
    value = over_root(plan, node, x, tuple(range(axis, len(x.shape))), _epsilon(node), centred)
    return _scaled(plan, node, value, node.given(1), node.given(2))


def _per_channel(plan: Plan, node: Node, value: Value) -> Value:
    """Scale and bias, a number each for the entries of axis 1."""
    column = (value.shape[1], *(1,) * (len(value.shape) - 2))
    terms = [node.constant(i, what) for i, what in ((1, "the scale"), (2, "the bias"))]
    for term in terms:
        node.require(term.shape == column[:1], f"scale and bias must have {column[0]} numbers, not {list(term.shape)}")
    return _scaled(plan, node, value, *(plan.view(node, term, column) for term in terms))


def _scaled(plan: Plan, node: Node, value: Value, scale: Value | None, bias: Value | None) -> Value:
    """Times the scale, plus the bias, neither of which may enlarge it."""
    for term in (scale, bias):
        fits = term is None or np.broadcast_shapes(value.shape, term.shape) == value.shape
        node.require(fits, f"a scale or bias of shape {list(term.shape) if term else []} enlarges {list(value.shape)}")
    if scale is not None:
        value = arithmetic.multiply(plan, replace(node, inputs=(value, scale)))[0]
    return value if bias is None else added(plan, node, value, bias)


def _epsilon(node: Node) -> float:
    epsilon = float(node.attribute("epsilon", float(np.float32(1e-5))))
    node.supported(epsilon > 0, f"epsilon {epsilon}, which is not positive")
    return epsilon


def _mean_of_squares(plan: Plan, x: Variable) -> tuple[RootMeanSquare, int] | None:
    """sqrt(x) as a root of a mean of squares plus epsilon, and the value squared; None if it is not that."""
    scale, mean = op_of(plan, x.step)
    if not isinstance(scale, Scale) or scale.bias.numel() != 1 or not bool((scale.weight == 1).all()):
        return None
    average, squared = op_of(plan, mean)
    power, source = op_of(plan, squared) if type(average) is ReduceMean else (None, -1)
    epsilon = float(scale.bias.flatten()[0])
    if type(average) is not ReduceMean or not average.keepdims or power != Pow(2.0) or not epsilon > 0:
        return None
    return RootMeanSquare(average.axes, epsilon), source
