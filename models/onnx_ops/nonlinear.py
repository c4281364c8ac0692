"""Scalar functions applied to every element."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from provenn.models.onnx_ops.plan import Node, Plan, Value
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh


def relu(plan: Plan, node: Node) -> Sequence[Value]:
    """max(x, 0)."""
    return [_each(plan, node, Relu())]


def leaky_relu(plan: Plan, node: Node) -> Sequence[Value]:
    """X where it is positive, alpha x elsewhere."""
    return [_each(plan, node, LeakyRelu(float(node.attribute("alpha", float(np.float32(0.01))))))]


def sigmoid(plan: Plan, node: Node) -> Sequence[Value]:
    """1 / (1 + exp(-x))."""
    return [_each(plan, node, Sigmoid())]


def tanh(plan: Plan, node: Node) -> Sequence[Value]:
    """The hyperbolic tangent."""
    return [_each(plan, node, Tanh())]


def clip(plan: Plan, node: Node) -> Sequence[Value]:
    """X held between two limits, either of which may be left out; from 0 upwards it is relu."""
    minimum, maximum = node.number("min", 1), node.number("max", 2)
    if minimum is None and maximum is None:
        return [node.input(0)]
    if minimum == 0 and maximum is None:
        return [_each(plan, node, Relu())]
    lower, upper = -inf if minimum is None else minimum, inf if maximum is None else maximum
    node.require(lower <= upper, f"its minimum {lower} is above its maximum {upper}")
    return [_each(plan, node, Clip(lower, upper))]


def _each(plan: Plan, node: Node, op: Op) -> Value:
    x = node.input(0)
    return plan.emit(node, op, [x], x.shape, x.lead)
