"""Functions that exporters write as several nodes, found where their last node is read.

The nodes inside stay in the plan and are left out of the graph, since nothing else reads them. Factors and constants
are taken as they are in the file: where x (1 + erf(k x)) has k = 1 / 1.41421354, the function bounded has it too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from provenn.models.onnx_ops.arithmetic import multiplied
from provenn.models.onnx_ops.branches import Condition
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value, Variable, op_of
from provenn.verifier.ops.abs import Abs
from provenn.verifier.ops.arithmetic import Add, Scale
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.exponential import Softplus
from provenn.verifier.ops.gated import Gelu, GeluTanh, HardSwish, Mish, Silu
from provenn.verifier.ops.power import Pow
from provenn.verifier.ops.saturating import Erf, Softsign
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh

Reader = Callable[[Plan, Node], Sequence[Value]]

LIMIT = 8
"""How many scalings in a row are looked through."""


@dataclass(frozen=True)
class Line:
    """factor x + offset, x the value of node `step`."""

    step: int
    factor: float
    offset: float


@dataclass(frozen=True)
class Found:
    """factor op(x), x the value of node `step`."""

    step: int
    op: Op
    factor: float


def product(reader: Reader) -> Reader:
    """The reader of products, where x times a gate of x is one function of x."""

    def read(plan: Plan, node: Node) -> Sequence[Value]:
        x, y = node.input(0), node.input(1)
        if isinstance(x, Variable) and isinstance(y, Variable) and x.shape == y.shape and x.lead == y.lead:
            found = _gated(plan, x, y) or _gated(plan, y, x)
            if found:
                return [_emitted(plan, node, x, found)]
        return reader(plan, node)

    return read


def quotient(reader: Reader) -> Reader:
    """The reader of quotients, where x / (1 + |x|) is one function of x."""

    def read(plan: Plan, node: Node) -> Sequence[Value]:
        x, y = node.input(0), node.input(1)
        if isinstance(x, Variable) and isinstance(y, Variable) and x.shape == y.shape and x.lead == y.lead:
            for inner in _lines(plan, y.step):
                op, source = op_of(plan, inner.step)
                over = _multiple(plan, x.step, source)
                if isinstance(op, Abs) and over and inner.factor == inner.offset > 0:
                    return [_emitted(plan, node, x, Found(source, Softsign(), over / inner.factor))]
        return reader(plan, node)

    return read


def choice(reader: Reader) -> Reader:
    """The reader of Where, for torch's Softplus: x where beta x > threshold, log(1 + exp(beta x)) / beta elsewhere."""

    def read(plan: Plan, node: Node) -> Sequence[Value]:
        condition, x, y = node.input(0), node.input(1), node.input(2)
        if isinstance(condition, Condition) and isinstance(x, Variable) and isinstance(y, Variable):
            found = _thresholded(plan, condition, x, y)
            if found and x.shape == y.shape == condition.shape and x.lead == y.lead:
                return [_emitted(plan, node, x, found)]
        return reader(plan, node)

    return read


def logarithm(reader: Reader) -> Reader:
    """The reader of Log, where log(sigmoid(x)) is -softplus(-x)."""

    def read(plan: Plan, node: Node) -> Sequence[Value]:
        x = node.input(0)
        op, source = op_of(plan, x.step) if isinstance(x, Variable) else (None, -1)
        if not isinstance(op, Sigmoid):
            return reader(plan, node)
        turned = multiplied(plan, node, replace(x, step=source), -1.0)
        soft = plan.emit(node, Softplus(), [turned], x.shape, x.lead)
        return [multiplied(plan, node, soft, -1.0)]

    return read


def _gated(plan: Plan, x: Variable, gate: Variable) -> Found | None:
    """The function that x times the gate is, if it is one."""
    for outer in _lines(plan, gate.step):
        op, source = op_of(plan, outer.step)
        if op is None:
            continue
        for inner in _lines(plan, source):
            found = _function(plan, op, outer, inner)
            over = _multiple(plan, x.step, found.step) if found else None
            if found and over:
                return replace(found, factor=found.factor * over)
    return None


def _multiple(plan: Plan, step: int, source: int) -> float | None:
    """The factor by which the value of node `step` is that of `source`; None if it is no multiple of it."""
    return next((a.factor for a in _lines(plan, step) if a.step == source and a.offset == 0), None)


def _function(plan: Plan, op: Op, outer: Line, inner: Line) -> Found | None:
    """The function that its input z is turned into by the factor  outer(op(inner(..)))."""
    plain, k = outer.offset == 0, inner.factor
    centred = outer.factor == outer.offset
    if isinstance(op, Sigmoid) and plain and inner.offset == 0 and k > 0:
        return Found(inner.step, Silu(k), outer.factor)
    if op == Clip(0.0, 1.0) and plain and k > 0 and 0 < inner.offset < 1:
        return Found(inner.step, HardSwish(k, inner.offset), outer.factor)
    if isinstance(op, Erf) and centred and inner.offset == 0 and k > 0:
        return Found(inner.step, Gelu(k * math.sqrt(2)), 2 * outer.factor)
    if isinstance(op, Tanh) and plain and k == 1 and inner.offset == 0:
        soft, source = op_of(plan, inner.step)
        # Where torch's softplus turns into z, beyond 20, the two differ by less than 1e-24.
        return Found(source, Mish(), outer.factor) if isinstance(soft, Softplus) and soft.threshold >= 20 else None
    if isinstance(op, Tanh) and centred and inner.offset == 0:
        return _gelu_tanh(plan, outer, inner)
    return None


def _gelu_tanh(plan: Plan, outer: Line, inner: Line) -> Found | None:
    """Z (1 + tanh(rate (z + cubic z^3))), with constants near those of the approximation."""
    added = plan.nodes[inner.step]
    if len(added.inputs) != 2 or added.parameters or added.make is None or not isinstance(added.make(), Add):
        return None
    for linear, curved in (added.inputs, added.inputs[::-1]):
        for cube in _lines(plan, curved):
            op, source = op_of(plan, cube.step)
            share = _multiple(plan, linear, source) if op == Pow(3.0) and cube.offset == 0 else None
            if share:
                rate, cubic = inner.factor * share, cube.factor / share
                return (
                    Found(source, GeluTanh(1.0, rate, cubic), 2 * outer.factor) if GeluTanh.near(rate, cubic) else None
                )
    return None


def _thresholded(plan: Plan, condition: Condition, x: Variable, y: Variable) -> Found | None:
    """Torch's Softplus, if it is that."""
    first, limit = condition.first, condition.second
    if not (isinstance(first, Variable) and isinstance(limit, Constant) and not condition.closed):
        return None
    if limit.known is None or limit.known.size != 1 or not float(limit.known.flat[0]) >= 1:
        return None
    for outer in _lines(plan, y.step):
        soft, source = op_of(plan, outer.step)
        beta = _multiple(plan, first.step, x.step)
        fits = beta is not None and abs(beta * outer.factor - 1) < 1e-12
        if isinstance(soft, Softplus) and soft == Softplus() and source == first.step and outer.offset == 0 and fits:
            return Found(source, Softplus(float(limit.known.flat[0])), outer.factor)
    return None


def _emitted(plan: Plan, node: Node, like: Variable, found: Found) -> Value:
    """The function as a node, times its factor."""
    source = replace(like, step=found.step)
    return multiplied(plan, node, plan.emit(node, found.op, [source], like.shape, like.lead), found.factor)


def _lines(plan: Plan, step: int) -> Iterator[Line]:
    """The value of node `step` as a line in itself, then in the values it is scaled from, the nearest first."""
    line = Line(step, 1.0, 0.0)
    for _ in range(LIMIT):
        yield line
        op, source = op_of(plan, line.step)
        if not isinstance(op, Scale) or plan.nodes[source].shape != plan.nodes[step].shape:
            return
        numbers = [np.unique(p.numpy()) for p in (op.weight, op.bias)]
        if any(len(n) != 1 for n in numbers):
            return
        weight, offset = (float(n[0]) for n in numbers)
        line = Line(source, line.factor * weight, line.factor * offset + line.offset)
