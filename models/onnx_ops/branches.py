"""Choices between computed values: comparisons, and what is chosen by them.

A comparison  a > b  is not a number here: it can be negated, cast, multiplied with a value, or read by Where. A choice
by it is read if its branches meet where the comparison turns: with d = a - b and constants k

    where(d > 0, x, y) = y + k relu(d)   if and only if   x - y = k d.

That covers maxima, LeakyRelu, absolute values and clamps written so, and the Householder activation, z where v.z > 0
and its reflection z - 2 v v.z elsewhere, where x - y = 2 v d.   Source: Singla et al. 2021.
Constants rounded to float32 leave a jump: the branches meet up to it, and `Gate` bounds it. A choice whose branches
do not meet is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from provenn.models.onnx_ops import arithmetic, conditions, masking
from provenn.models.onnx_ops.arithmetic import added, expanded, multiplied
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Unheld, Value
from provenn.models.onnx_ops.probe import Law, law
from provenn.models.onnx_ops.selection import difference, larger, together
from provenn.verifier.errors import UnsupportedOp
from provenn.verifier.ops.gate import Gate
from provenn.verifier.ops.larger import Either, Larger
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.relu import Relu

Reader = Callable[[Plan, Node], Sequence[Value]]

EXACT, ROUNDED = 1e-12, 1e-6
"""How far branches may miss each other, relative to their size: by float64's roundings; by float32's."""

PASSING = frozenset({"Identity", "Dropout", "Shape", "Size"})
"""Operators that pass a value on as it is, or ask for its shape alone."""


@dataclass(frozen=True, eq=False)
class Condition(Unheld):
    """first > second, or first >= second where `closed`; its shape is theirs, broadcast."""

    first: Value
    second: Value
    closed: bool

    kind = "a comparison of computed values (read by Where, Not, Cast and Mul alone)"
    read_by = PASSING | {"Where", "Not", "Cast", "Mul"}

    def negated(self) -> Condition:
        """The opposite."""
        return replace(self, first=self.second, second=self.first, closed=not self.closed)

    def opposes(self, plan: Plan, other: Condition) -> bool:
        """Whether the other holds exactly where this does not."""
        swapped = _same(plan, self.first, other.second) and _same(plan, self.second, other.first)
        return swapped and self.closed != other.closed and self.shape == other.shape


@dataclass(frozen=True, eq=False)
class Gated(Unheld):
    """value where the condition holds, else 0: one half of a choice; its shape is theirs, broadcast."""

    condition: Condition
    value: Value

    kind = "a value times a comparison (read by Add alone, with the value of the opposite case)"
    read_by = PASSING | {"Add"}


def compared(reader: Reader, swapped: bool, closed: bool) -> Reader:
    """The reader of a comparison: of constants by `reader`; else first > second, or second > first where `swapped`."""

    def read(plan: Plan, node: Node) -> Sequence[Value]:
        first, second = node.input(0), node.input(1)
        if isinstance(first, Constant) and isinstance(second, Constant):
            return reader(plan, node)
        shape = np.broadcast_shapes(first.shape, second.shape)
        ends = (second, first) if swapped else (first, second)
        return [Condition(-1, shape, len(shape) > 1 and shape[0] == 1, *ends, closed)]

    return read


greater = compared(conditions.greater, False, False)
greater_or_equal = compared(conditions.greater_or_equal, False, True)
less = compared(conditions.less, True, False)
less_or_equal = compared(conditions.less_or_equal, True, True)


def not_(plan: Plan, node: Node) -> Sequence[Value]:
    """The opposite of a comparison, or of constants."""
    x = node.input(0)
    return [x.negated()] if isinstance(x, Condition) else conditions.not_(plan, node)


def where(plan: Plan, node: Node) -> Sequence[Value]:
    """X where a condition holds, y elsewhere: a constant condition, or a comparison whose branches meet."""
    condition = node.input(0)
    if not isinstance(condition, Condition):
        return masking.where(plan, node)
    chosen = _chosen(plan, node, condition, node.input(1), node.input(2))
    return [_refused(node, chosen) if isinstance(chosen, Law) else chosen]


def times(reader: Reader) -> Reader:
    """The reader of products, where one factor may be a comparison (cast to a number)."""

    def read(plan: Plan, node: Node) -> Sequence[Value]:
        factors = [node.input(0), node.input(1)]
        conditions_ = [f for f in factors if isinstance(f, Condition)]
        if len(conditions_) != 1:
            return reader(plan, node)
        (value,) = (f for f in factors if not isinstance(f, Condition))
        zero = plan.stored(node.name, np.zeros(()))
        chosen = _chosen(plan, node, conditions_[0], value, zero)
        if not isinstance(chosen, Law):
            return [chosen]
        shape = np.broadcast_shapes(value.shape, conditions_[0].shape)
        return [Gated(-1, shape, len(shape) > 1 and shape[0] == 1, conditions_[0], value)]

    return read


def plus(reader: Reader) -> Reader:
    """The reader of sums, where both terms may be halves of one choice."""

    def read(plan: Plan, node: Node) -> Sequence[Value]:
        x, y = node.input(0), node.input(1)
        if not (isinstance(x, Gated) and isinstance(y, Gated) and x.condition.opposes(plan, y.condition)):
            return reader(plan, node)
        chosen = _chosen(plan, node, x.condition, x.value, y.value)
        return [_refused(node, chosen) if isinstance(chosen, Law) else chosen]

    return read


def _refused(node: Node, found: Law) -> Value:
    """Raises: UnsupportedOp."""
    missed = f"its branches miss each other by {found.error:.1e} of their size where the comparison turns"
    known = "max, min, relu, LeakyRelu, abs, clamps and Householder reflections written so, and constant conditions"
    raise UnsupportedOp(node.name, node.operator, f"a choice by computed values that jumps: {missed}. Read are {known}")


def _chosen(plan: Plan, node: Node, condition: Condition, x: Value, y: Value) -> Value | Law:
    """The choice, or by how much its branches miss each other."""
    ends = condition.first, condition.second
    numbers = all(v.floating for v in (x, y, *ends) if isinstance(v, Constant))
    node.require(numbers, "a computed tensor meets a constant of whole numbers")
    found = law(plan, node, (x, y), ends)
    if not found.error <= ROUNDED:
        return found
    falls, rises = (found.factor <= 0).all(), (found.factor >= 0).all()
    plain = found.error <= EXACT and (falls or rises)
    constant = isinstance(x, Constant) or isinstance(y, Constant)
    if plain and (constant or (_same(plan, x, ends[0]) and _same(plan, y, ends[1]))):
        value = larger(plan, node, x, y, bool(falls and not rises))
    else:
        leaky = _leaky(plan, node, condition, x, y) or _leaky(plan, node, condition.negated(), y, x)
        value = leaky if plain and leaky else _bent(plan, node, condition, (x, y), found)
    return expanded(plan, node, value, found.factor.shape)


def _leaky(plan: Plan, node: Node, condition: Condition, x: Value, y: Value) -> Value | None:
    """LeakyRelu, where x is d itself and y a multiple of it."""
    zero = plan.stored(node.name, np.zeros(()))
    ends = condition.first, condition.second
    same, multiple = (law(plan, node, (v, zero), ends) for v in (x, y))
    if same.error > EXACT or same.uniform != 1 or multiple.error > EXACT or multiple.uniform is None:
        return None
    gap = difference(plan, node, *ends)
    return plan.emit(node, LeakyRelu(multiple.uniform), [gap], gap.shape, gap.lead)


def _bent(plan: Plan, node: Node, condition: Condition, branches: tuple[Value, Value], found: Law) -> Value:
    """The choice as  y + k relu(d), plus  gate(d, x - y - k d)  for branches that miss each other by roundings."""
    x, y = branches
    gap = difference(plan, node, condition.first, condition.second)
    positive = plan.emit(node, Relu(), [gap], gap.shape, gap.lead)
    value = added(plan, node, _multiplied(plan, node, positive, found), y)
    plain = found.error <= EXACT
    if not plain:
        jump = difference(plan, node, difference(plan, node, x, y), _multiplied(plan, node, gap, found))
        held, shape, lead = together(plan, node, (gap, jump))
        value = added(plan, node, value, plan.emit(node, Gate(condition.closed), held, shape, lead))
    if isinstance(x, Constant) or isinstance(y, Constant):
        return value
    if plain and (found.factor >= 0).all():
        op: Either = Larger()
    else:
        op = Larger(True) if plain and (found.factor <= 0).all() else Either()
    held, shape, lead = together(plan, node, (expanded(plan, node, value, found.factor.shape), x, y))
    return plan.emit(node, op, held, shape, lead)


def _multiplied(plan: Plan, node: Node, x: Value, found: Law) -> Value:
    """The factor times x."""
    if found.uniform is not None:
        return multiplied(plan, node, x, found.uniform)
    factor = plan.stored(node.name, found.factor)
    return arithmetic.multiply(plan, replace(node, inputs=(x, factor)))[0]


def _same(plan: Plan, x: Value, y: Value) -> bool:
    """Whether two values are one, or constants that are equal, in float32 too."""
    if isinstance(x, Constant) and isinstance(y, Constant):
        known = x.known is not None and y.known is not None and np.array_equal(x.known, y.known)
        single = plan.folding.single
        return x.step == y.step or (known and np.array_equal(single(x.step), single(y.step)))
    return type(x) is type(y) and x.step == y.step and x.shape == y.shape
