"""Operators that keep or replace elements by a constant pattern."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from provenn.models.onnx_ops.arithmetic import ZERO, added, expanded
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value, tensor
from provenn.models.tensors import Array
from provenn.verifier.ops.arithmetic import Scale
from provenn.verifier.ops.base import Op, Shape


def where(plan: Plan, node: Node) -> Sequence[Value]:
    """X where a constant condition holds, y elsewhere."""
    condition = node.constant(0, "the condition")
    x, y = node.input(1), node.input(2)
    shape = np.broadcast_shapes(condition.shape, x.shape, y.shape)
    plan.limits.require_elements(shape, f"node '{node.name}': its result")
    if isinstance(x, Constant) and isinstance(y, Constant):
        node.require(x.floating == y.floating, "its constants have different types")

        def choose(c: Array, a: Array, b: Array) -> Array:
            return np.broadcast_to(np.where(c != 0, a, b), shape)

        return [plan.fold(node, [condition, x, y], choose, shape, x.floating)]
    return [added(plan, node, _kept(plan, node, condition, x, shape), _kept(plan, node, condition, y, shape, False))]


def _kept(plan: Plan, node: Node, condition: Constant, x: Value, shape: Shape, holds: bool = True) -> Value:
    """X where the condition is `holds`, zero elsewhere."""
    if isinstance(x, Constant):
        node.require(x.floating, "a computed tensor meets a constant of whole numbers")

        def keep(c: Array, a: Array) -> Array:
            return np.broadcast_to(np.where((c != 0) == holds, a, 0.0), shape)

        return plan.fold(node, [condition, x], keep, shape, True)
    return masked(plan, node, expanded(plan, node, x, shape), condition, holds)


def masked(plan: Plan, node: Node, x: Value, condition: Constant, holds: bool) -> Value:
    """X, an element of the condition's shape or more, times 1 where the condition is `holds` and 0 elsewhere."""
    dropped = 1 if x.lead and len(condition.shape) == len(x.shape) else 0

    def make(array: Array) -> Op:
        return Scale(tensor(((array != 0) == holds).reshape(condition.shape[dropped:])), tensor(ZERO))

    return plan.emit(node, make, [x], x.shape, x.lead, [condition])


def is_nan(plan: Plan, node: Node) -> Sequence[Value]:
    """False everywhere: in real arithmetic on finite numbers every value is a number, or the bounds are refused.

    Exporters ask it of a softmax, whose row would be none if all of it were masked by minus infinity.
    """
    x = node.input(0)
    return [plan.fold(node, [], lambda: np.zeros(x.shape, dtype=np.int64), x.shape, False)]


def trilu(plan: Plan, node: Node) -> Sequence[Value]:
    """The upper (or lower) triangle of matrices, zeros elsewhere."""
    x, upper = node.input(0), node.flag("upper", True)
    shift = 0 if node.given(1) is None else node.integers(1, "k")[0]
    node.require(len(x.shape) > 1, f"its input of shape {list(x.shape)} holds no matrix")
    rows, columns = x.shape[-2:]

    def triangle() -> Array:
        ones = np.ones((rows, columns), dtype=np.int64)
        return np.triu(ones, shift) if upper else np.tril(ones, shift)

    if isinstance(x, Constant):
        return [plan.fold(node, [x], lambda a: a * triangle(), x.shape, x.floating)]
    matrix = plan.held(node, x, x.lead and len(x.shape) > 2)
    return [masked(plan, node, matrix, plan.fold(node, [], triangle, (rows, columns), False), True)]
