"""Whether two affine expressions of a plan are proportional, found by evaluating them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from provenn.models.onnx_ops.folding import widened
from provenn.models.onnx_ops.plan import SMALL, Constant, Node, Plan, Value, Variable
from provenn.models.tensors import Array
from provenn.verifier.ops.base import Op, Shape

DRAWS = 6
"""Random points. Two affine maps that agree at random points up to a factor are proportional with certainty."""


@dataclass(frozen=True, eq=False)
class Law:
    """x - y = factor d, up to `error` of the size of the terms: factor of the shape of all together."""

    factor: Array
    error: float

    @property
    def uniform(self) -> float | None:
        """The factor if it is the same everywhere."""
        first = float(self.factor.flat[0])
        return first if (self.factor == first).all() else None


def law(plan: Plan, node: Node, choice: Sequence[Value], compared: Sequence[Value]) -> Law:
    """The best factor in  x - y = factor (a - b),  for choice (x, y) and compared (a, b), element by element.

    Values are followed back through affine ops of few parameters; what lies before them may be anything. Half of the
    points have coordinates of widely different sizes, so that small coefficients show.
    """
    shape = np.broadcast_shapes(*(v.shape for v in (*choice, *compared)))
    values = _values(plan, node, [*choice, *compared])
    x, y, a, b = (np.broadcast_to(v, (DRAWS, *shape)) for v in (_padded(v, len(shape)) for v in values))
    change, gap = x - y, a - b
    size = np.abs(x) + np.abs(y) + np.abs(a) + np.abs(b)
    weight = np.where(size > 0, size, 1.0) ** -2
    square = (weight * gap**2).sum(0)
    factor = (weight * change * gap).sum(0) / np.where(square > 0, square, 1.0)
    near = np.round(factor)
    factor = np.where(np.abs(factor - near) < 1e-13, near, factor)
    first = factor.flat[0]
    factor = np.where(np.abs(factor - first) <= 1e-13 * abs(first), first, factor)
    terms = np.abs(x) + np.abs(y) + np.abs(factor) * (np.abs(a) + np.abs(b))
    error = np.abs(change - factor * gap) / np.where(terms > 0, terms, 1.0)
    return Law(factor, float(error.max()))


def _values(plan: Plan, node: Node, wanted: Sequence[Value]) -> list[Array]:
    """Every value at the random points: [points or 1, *ONNX shape]."""
    known = _variables(plan, {v.step for v in wanted if isinstance(v, Variable)})
    found = []
    for value in wanted:
        if isinstance(value, Constant):
            node.supported(value.known is not None, "a constant computed within the model, of many elements")
            found.append(np.asarray(value.known, dtype=np.float64)[None])
            continue
        node.supported(isinstance(value, Variable), "a choice between comparisons")
        found.append(known[value.step].numpy().reshape(DRAWS, *value.shape))
    return found


def _variables(plan: Plan, steps: set[int]) -> dict[int, torch.Tensor]:
    """Nodes of the plan at random points of the atoms: the nodes that are not affine, or have many parameters."""
    ops: dict[int, Op | None] = {}
    for step in range(max(steps, default=-1), -1, -1):
        if step in steps:
            ops[step] = op = _affine(plan, step)
            steps = steps | set(plan.nodes[step].inputs if op else ())
    generator = np.random.default_rng(0)
    values: dict[int, torch.Tensor] = {}
    for step in sorted(ops):
        op = ops[step]
        if op is None:
            values[step] = torch.from_numpy(_points(generator, plan.nodes[step].shape))
        else:
            values[step] = op.forward(*(values[i] for i in plan.nodes[step].inputs))
    return values


def _affine(plan: Plan, step: int) -> Op | None:
    apply = plan.nodes[step]
    arrays = [c.known for c in apply.parameters if c.known is not None and c.known.size <= SMALL]
    if apply.make is None or len(arrays) < len(apply.parameters):
        return None
    op = apply.make(*(widened(a) for a in arrays))
    return op if op.affine else None


def _points(generator: np.random.Generator, shape: Shape) -> Array:
    points = generator.standard_normal((DRAWS, *shape))
    points[: DRAWS // 2] *= 10.0 ** generator.uniform(-3, 3, (DRAWS // 2, *shape))
    return points


def _padded(array: Array, rank: int) -> Array:
    """Axes of length 1 put after the first."""
    return array.reshape(array.shape[0], *(1,) * (rank + 1 - array.ndim), *array.shape[1:])
