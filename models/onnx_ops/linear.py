"""Gemm and MatMul with one constant factor."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from string import ascii_lowercase

import numpy as np
import torch

from provenn.models.onnx_ops.arithmetic import added, multiplied
from provenn.models.onnx_ops.contraction import contracted
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value, tensor
from provenn.models.tensors import Array
from provenn.verifier.ops.base import Op, Shape
from provenn.verifier.ops.linear import LeftLinear, Linear
from provenn.verifier.ops.shape import Transpose


def matmul(plan: Plan, node: Node) -> Sequence[Value]:
    """X W, or M x, as numpy multiplies them, stacks of matrices included; one factor is constant."""
    x, y = node.input(0), node.input(1)
    node.require(x.shape and y.shape, "a factor is a single number")
    node.require(x.shape[-1] == y.shape[-2 if len(y.shape) > 1 else 0], f"{list(x.shape)} does not fit {list(y.shape)}")
    stack = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    shape = (*stack, *x.shape[-2:-1], *(y.shape[-1:] if len(y.shape) > 1 else ()))
    if isinstance(y, Constant) and prod(y.shape[:-2]) == 1:
        return [_right(plan, node, x, y, shape)]
    if isinstance(x, Constant) and prod(x.shape[:-2]) == 1:
        return [_left(plan, node, x, y, shape)]
    node.supported(isinstance(x, Constant) or isinstance(y, Constant), "both factors are computed from the input")
    return [_stacked(plan, node, x, y)]


def gemm(plan: Plan, node: Node) -> Sequence[Value]:
    """Alpha A' B' + beta C with A or B constant; C may be computed too."""
    x, y = node.input(0), node.input(1)
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    flip_x, flip_y = node.flag("transA"), node.flag("transB")
    node.require(len(x.shape) == len(y.shape) == 2, "A and B must be matrices")
    rows, inner = x.shape[::-1] if flip_x else x.shape
    height, columns = y.shape[::-1] if flip_y else y.shape
    node.require(inner == height, f"A' has {inner} columns, B' has {height} rows")
    shape = (rows, columns)
    term = node.given(2)
    if term is not None:
        node.require(_fits(term.shape, shape), f"C of shape {list(term.shape)} does not fit {list(shape)}")
    if isinstance(y, Constant):
        x = _flipped(plan, node, x) if flip_x else x
        inside = term if isinstance(term, Constant) and (len(term.shape) < 2 or term.shape[0] == 1) else None
        folds = [y] if inside is None else [y, inside]

        def make(weight: Array, bias: Array | None = None) -> Op:
            bias = np.zeros(columns) if bias is None else np.broadcast_to(beta * bias, (1, columns))[0]
            weight = weight if flip_y else weight.T
            return Linear(tensor(weight if alpha == 1 else alpha * weight), tensor(bias))

        product = plan.emit(node, make, [x], shape, x.lead, folds)
        term = None if inside is not None else term
    else:
        node.supported(isinstance(x, Constant), "A and B are both computed from the input")
        assert isinstance(x, Constant)
        y = _flipped(plan, node, y) if flip_y else plan.held(node, y, False)
        product = plan.emit(node, lambda m: LeftLinear(tensor(alpha * (m.T if flip_x else m))), [y], shape, False, [x])
    if term is None:
        return [product]
    return [added(plan, node, product, multiplied(plan, node, term, beta))]


def _right(plan: Plan, node: Node, x: Value, weight: Constant, shape: Shape) -> Value:
    """X W along the last axis."""
    x = plan.held(node, x, x.lead and len(x.shape) > 1)
    inner, columns = x.shape[-1], prod(weight.shape) // x.shape[-1]

    def make(array: Array) -> Op:
        return Linear(tensor(array.reshape(inner, columns).T), torch.zeros(columns, dtype=torch.float64))

    product = plan.emit(node, make, [x], (*x.shape[:-1], columns), x.lead, [weight])
    return plan.view(node, product, shape) if product.shape != shape else product


def _left(plan: Plan, node: Node, matrix: Constant, x: Value, shape: Shape) -> Value:
    """M x along the last axis but one."""
    if len(x.shape) == 1:
        x = plan.view(node, x, (*x.shape, 1))
    x = plan.held(node, x, x.lead and len(x.shape) > 2)
    inner = x.shape[-2]
    rows = prod(matrix.shape) // inner

    def make(array: Array) -> Op:
        return LeftLinear(tensor(array.reshape(rows, inner)))

    product = plan.emit(node, make, [x], (*x.shape[:-2], rows, x.shape[-1]), x.lead, [matrix])
    return plan.view(node, product, shape) if product.shape != shape else product


def _stacked(plan: Plan, node: Node, x: Value, y: Value) -> Value:
    """One product for every matrix of the stacks, which are aligned from the right."""
    stack = max(len(x.shape), len(y.shape)) - 2
    node.supported(stack <= 20, f"{stack} axes of matrices")
    letters = ascii_lowercase[:stack]
    first = letters[stack - max(len(x.shape) - 2, 0) :] + ("xy" if len(x.shape) > 1 else "y")
    second = letters[stack - max(len(y.shape) - 2, 0) :] + ("yz" if len(y.shape) > 1 else "y")
    result = letters + first[-2:-1] * (len(x.shape) > 1) + second[-1:] * (len(y.shape) > 1)
    return contracted(plan, node, [x, y], [first, second], result)


def _flipped(plan: Plan, node: Node, x: Value) -> Value:
    x = plan.held(node, x, False)
    return plan.emit(node, Transpose((1, 0)), [x], (x.shape[1], x.shape[0]), False)


def _fits(shape: Shape, target: Shape) -> bool:
    """Whether numpy broadcasts `shape` to `target`."""
    paired = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(n in (1, m) for n, m in paired)
