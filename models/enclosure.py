"""A network with sin, cos, 1/z, squares and products, enclosed by one without: broken lines, their errors as inputs.

For every x of the box there are errors e of their box with g(x, e) = f(x): where f computes phi(z), g computes
line(z) + e_k, and e_k ranges over all that phi(z) - line(z) may be while z lies within the ends of the line. So what is
proved of g for all x and e holds for f at all x; and g has only operators that the trusted kernel reads. That every z
stays within the ends of its line is not taken for granted: the z are outputs of g, too, to be proved along.
Products: a b = ((a + b)^2 - (a - b)^2) / 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, frexp

import numpy as np
import torch
from onnx import NodeProto

from provenn.models.admission import admitted
from provenn.models.broken_lines import CURVES, BrokenLine, Span, broken_line
from provenn.models.composition import INPUT, Composition, constants
from provenn.models.onnx_reader import read
from provenn.models.preprocessing import free_prefix
from provenn.verifier.bounds.backward import crown
from provenn.verifier.errors import UnsupportedOp
from provenn.verifier.region import Region
from provenn.verifier.spec import InputSet

LEAST = 2.0**-20
"""Intervals of arguments are widened as if they had a number as large as this in them."""


@dataclass(frozen=True, eq=False)
class Enclosed:
    """model: g, whose inputs are x, then the errors, and whose outputs are those of f, then the arguments z.

    lower, upper: the box of all inputs, exactly; arguments: within which ends every z has to stay.
    """

    model: bytes
    lower: tuple[Fraction, ...]
    upper: tuple[Fraction, ...]
    arguments: tuple[Span, ...]


def enclosed(data: bytes, lower: Sequence[Fraction], upper: Sequence[Fraction], pieces: int) -> Enclosed:
    """The enclosure of a network [1, inputs] -> [1, outputs] over a box, every function in that many pieces.

    Raises: UnsupportedOp where a function is applied to anything but [1, k]; Unbounded for an argument.
    """
    return _Walk(data, lower, upper, pieces).run()


class _Walk:
    """errors: by their place, counted on from the inputs; varying: values that depend on the input."""

    def __init__(self, data: bytes, lower: Sequence[Fraction], upper: Sequence[Fraction], pieces: int) -> None:
        self.source, self.pieces = admitted(data), pieces
        graph, form = self.source.file.model.graph, self.source.file.model.ir_version
        self.made = Composition(len(lower), self.source.file.opset, form, free_prefix(graph, "enclosure/"))
        self.lower, self.upper = list(lower), list(upper)
        self.made.stored += list(self.source.file.model.graph.initializer)
        self.arguments: list[str] = []
        self.spans: list[Span] = []
        first = self.made.taken(INPUT, range(len(lower)))
        self.names = {self.source.input_name: first}
        self.varying = {first}

    def run(self) -> Enclosed:
        """See enclosed."""
        nodes = self.source.file.model.graph.node
        given = constants(nodes, self.made.stored)
        for node in nodes:
            inputs = [self.names.get(name, name) for name in node.input]
            moves = [name in self.varying for name in inputs]
            square = node.op_type == "Mul" and all(moves) and inputs[0] == inputs[1]
            square |= node.op_type == "Pow" and moves[0] and bool((given.get(inputs[1], np.zeros(1)) == 2).all())
            if square or (node.op_type in CURVES and any(moves)):
                found = self._curved(inputs[0], "Square" if square else node.op_type)
            elif node.op_type == "Div" and moves[1]:
                found = self._curved(inputs[1], "Reciprocal")
                found = self._product(inputs[0], found) if moves[0] else self.made.node("Mul", [inputs[0], found])
            elif node.op_type == "Mul" and all(moves):
                found = self._product(*inputs)
            else:
                self._kept(node, inputs)
                continue
            self.names[node.output[0]] = found
            self.varying.add(found)
        result = self.names.get(self.source.output_name, self.source.output_name)
        size = int(np.prod(self.source.output.held_shape))
        flat = self.made.node("Reshape", [result, self.made.constant(np.array([1, size], np.int64))])
        model = self.made.file([flat, *self.arguments])
        return Enclosed(model, tuple(self.lower), tuple(self.upper), tuple(self.spans))

    def _kept(self, node: NodeProto, inputs: Sequence[str]) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        self.made.nodes.append(copy)
        if any(name in self.varying for name in inputs):
            self.varying.update(node.output)

    def _curved(self, value: str, curve: str) -> str:
        """A function of a value: its line plus its error."""
        line, errors = self._line(value, curve)
        return self.made.node("Add", [line, self._error(errors)])

    def _product(self, left: str, right: str) -> str:
        """((a + b)^2 - (a - b)^2) / 4, the errors of both squares as one."""
        parts = [self._line(self.made.node(operator, [left, right]), "Square") for operator in ("Add", "Sub")]
        (plus, above), (minus, below) = parts
        scaled = self.made.node("Mul", [self.made.node("Sub", [plus, minus]), self.made.real([0.25])])
        errors = [
            ((low - high2) / 4, (high - low2) / 4) for (low, high), (low2, high2) in zip(above, below, strict=True)
        ]
        return self.made.node("Add", [scaled, self._error(errors)])

    def _error(self, spans: Sequence[Span]) -> str:
        """New inputs in these spans, as a value."""
        first = self.made.inputs
        self.made.inputs += len(spans)
        self.lower += [low for low, _ in spans]
        self.upper += [high for _, high in spans]
        return self.made.taken(INPUT, range(first, self.made.inputs))

    def _line(self, value: str, curve: str) -> tuple[str, list[Span]]:
        """The broken line of every entry, and what phi may differ by."""
        lines = [broken_line(CURVES[curve], low, high, self.pieces) for low, high in self._ranges(value)]
        self.arguments.append(value)
        self.spans += [line.ends for line in lines]
        return self._drawn(value, lines), [(line.lower, line.upper) for line in lines]

    def _drawn(self, value: str, lines: Sequence[BrokenLine]) -> str:
        """The lines themselves, as BrokenLine has them."""
        counts = [len(line.knots) for line in lines]
        spread, gathered = np.zeros((len(lines), sum(counts))), np.zeros((sum(counts), len(lines)))
        start = 0
        for i, line in enumerate(lines):
            spread[i, start : start + counts[i]] = 1
            gathered[start : start + counts[i], i] = line.bends
            start += counts[i]
        made = self.made
        straight = made.node("Mul", [value, made.real([[line.slope for line in lines]])])
        straight = made.node("Add", [straight, made.real([[line.offset for line in lines]])])
        if not start:  # one piece each: nothing bends
            return straight
        beyond = made.node("MatMul", [value, made.real(spread)])
        knots = np.concatenate([line.knots for line in lines])[None]
        bent = made.node("Relu", [made.node("Sub", [beyond, made.real(knots)])])
        return made.node("Add", [straight, made.node("MatMul", [bent, made.real(gathered)])])

    def _ranges(self, value: str) -> list[Span]:
        """Of every entry of a value over the box of all inputs so far, with room for rounding.

        Ends are multiples of a power of two, so that another machine, which adds up otherwise, finds the same ones.
        Raises: UnsupportedOp, Unbounded.
        """
        graph = read(self.made.file([value]))
        if len(graph.output_shape) != 1:
            raise UnsupportedOp(value, "Reshape", f"it is enclosed in the shape [1, k], not {graph.output_shape}")
        inputs = InputSet(tuple(self.lower), tuple(self.upper))
        region = Region.of([inputs], graph.input_shape, "cpu", torch.float64)
        rows = torch.eye(graph.output_shape[0], dtype=torch.float64).unsqueeze(1)
        with torch.no_grad():
            relaxed = crown(graph, region)
            low, high = (sign * relaxed.form(len(graph.nodes) - 1, sign * rows)[1][:, 0] for sign in (1.0, -1.0))
        return [_wider(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True)]


def _wider(low: float, high: float) -> Span:
    """[low, high] and a little more on both sides: 2^-12 to 2^-10 of the largest number in it."""
    grain = Fraction(2) ** (frexp(max(abs(low), abs(high), LEAST))[1] - 12)
    return (floor(Fraction(low) / grain) - 1) * grain, (ceil(Fraction(high) / grain) + 1) * grain
