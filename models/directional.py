"""How fast a network's output changes while its input moves, as nodes of ONNX: forward differentiation.

Along an absolutely continuous curve x(t) every value z(t) of the network is absolutely continuous, too (its functions
are locally Lipschitz), so the chain rule holds for almost every t. That is so at kinks as well: where relu's argument
is zero for a set of times of positive measure, its derivative is zero for almost all of them, and whatever slope is
taken there is multiplied by it. So the value made here is d/dt V(x(t)) for almost every t, whichever of its slopes a
function is given at a kink.

Every derivative has the shape of its value, so that later operators do the same to both: numbers made here have no
axes, since of one with an axis a value without axes would get one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from provenn.models.composition import Composition, constants
from provenn.verifier.errors import UnsupportedOp

LINEAR = frozenset({"Flatten", "Identity", "Neg", "ReduceMean", "ReduceSum", "Reshape", "Squeeze", "Transpose",
                    "Unsqueeze", "Slice", "Gather"})  # fmt: skip
"""Operators that are linear in their first input, and read constants besides."""


def derivative(made: Composition, value: str, source: str, velocity: str) -> str:
    """The value d/dt of a value of the composition that is computed from `source` alone, while that has this velocity.

    Raises: UnsupportedOp for an operator that has no rule here.
    """
    return _Walk(made).run(value, source, velocity)


class _Walk:
    """tangents: of the values that move; constants: the numbers that are given as such."""

    def __init__(self, made: Composition) -> None:
        self.made, self.nodes = made, list(made.nodes)
        self.constants: dict[str, NDArray[np.generic]] = constants(made.nodes, made.stored)
        self.tangents: dict[str, str] = {}

    def run(self, value: str, source: str, velocity: str) -> str:
        """See derivative."""
        self.tangents[source] = velocity
        for node in self.nodes:
            if any(name in self.tangents for name in node.input):
                self.tangents[node.output[0]] = self._moved(node)
        return self.tangents[value]

    def _moved(self, node: NodeProto) -> str:
        """The tangent of a node's output.   Raises: UnsupportedOp."""
        rule = RULES.get(node.op_type)
        if rule is None or any(name in self.tangents for name in node.input[2:]):
            raise UnsupportedOp(
                node.name, node.op_type, f"it is not differentiated here; {', '.join(sorted(RULES))} are"
            )
        return rule(self, node)

    def velocity(self, name: str) -> str:
        """The tangent of a value, zeros for a constant.   Raises: UnsupportedOp for one that is not stored as it is."""
        if name in self.tangents:
            return self.tangents[name]
        if name not in self.constants:
            raise UnsupportedOp(name, "constant", "a constant that the file computes is not differentiated here")
        return self.made.constant(np.zeros_like(self.constants[name]))

    def again(self, node: NodeProto, inputs: Sequence[str]) -> str:
        """The same operator on others."""
        copy = NodeProto()
        copy.CopyFrom(node)
        name = self.made.node(node.op_type, inputs)
        self.made.nodes[-1].attribute.extend(copy.attribute)
        return name


Rule = Callable[[_Walk, NodeProto], str]


def _linear(walk: _Walk, node: NodeProto) -> str:
    return walk.again(node, [walk.velocity(node.input[0]), *node.input[1:]])


def _sum(walk: _Walk, node: NodeProto) -> str:
    """Add, Sub, Concat: in all inputs together."""
    return walk.again(node, [walk.velocity(name) for name in node.input])


def _gemm(walk: _Walk, node: NodeProto) -> str:
    """Without the constant term; of one moving factor."""
    if node.input[1] in walk.tangents:
        raise UnsupportedOp(node.name, node.op_type, "both factors move")
    return walk.again(node, [walk.velocity(node.input[0]), node.input[1]])


def _product(walk: _Walk, node: NodeProto) -> str:
    """Mul, MatMul: (a b)' = a' b + a b'."""
    (left, right), moves = node.input, [name in walk.tangents for name in node.input]
    first = walk.again(node, [walk.tangents[left], right]) if moves[0] else ""
    second = walk.again(node, [left, walk.tangents[right]]) if moves[1] else ""
    return walk.made.node("Add", [first, second]) if all(moves) else first or second


def _quotient(walk: _Walk, node: NodeProto) -> str:
    if node.input[1] in walk.tangents:
        raise UnsupportedOp(node.name, node.op_type, "its divisor moves")
    return _linear(walk, node)


def _square(walk: _Walk, node: NodeProto) -> str:
    """(z^2)' = 2 z z'."""
    if not (walk.constants.get(node.input[1], np.zeros(1)) == 2).all():
        raise UnsupportedOp(node.name, node.op_type, "only squares are differentiated here")
    twice = walk.made.node("Mul", [node.input[0], walk.made.real(2)])
    return walk.made.node("Mul", [twice, walk.velocity(node.input[0])])


def _tanh(walk: _Walk, node: NodeProto) -> str:
    """The slope is 1 - tanh^2."""
    (value,) = node.output
    slope = walk.made.node("Sub", [walk.made.real(1), walk.made.node("Mul", [value, value])])
    return walk.made.node("Mul", [slope, walk.velocity(node.input[0])])


def _sigmoid(walk: _Walk, node: NodeProto) -> str:
    """The slope is sigma - sigma^2."""
    (value,) = node.output
    slope = walk.made.node("Sub", [value, walk.made.node("Mul", [value, value])])
    return walk.made.node("Mul", [slope, walk.velocity(node.input[0])])


def _relu(walk: _Walk, node: NodeProto) -> str:
    """(1 + sign) / 2: the slope is 1/2 at the kink."""
    half, sign = walk.made.real(0.5), walk.made.node("Sign", [node.input[0]])
    slope = walk.made.node("Add", [walk.made.node("Mul", [sign, half]), half])
    return walk.made.node("Mul", [slope, walk.velocity(node.input[0])])


def _abs(walk: _Walk, node: NodeProto) -> str:
    return walk.made.node("Mul", [walk.made.node("Sign", [node.input[0]]), walk.velocity(node.input[0])])


def _sin(walk: _Walk, node: NodeProto) -> str:
    return walk.made.node("Mul", [walk.made.node("Cos", node.input), walk.velocity(node.input[0])])


def _cos(walk: _Walk, node: NodeProto) -> str:
    slope = walk.made.node("Mul", [walk.made.node("Sin", node.input), walk.made.real(-1)])
    return walk.made.node("Mul", [slope, walk.velocity(node.input[0])])


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(LINEAR, _linear),
    **dict.fromkeys(("Add", "Sub", "Concat"), _sum),
    **{"Gemm": _gemm, "MatMul": _product, "Mul": _product, "Div": _quotient, "Pow": _square},
    **{"Tanh": _tanh, "Sigmoid": _sigmoid, "Relu": _relu, "Abs": _abs, "Sin": _sin, "Cos": _cos},
}
"""By operator, how a node's output moves with its inputs."""
