"""Products and quotients of two computed values, and the softmax and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np

from provenn.models.onnx_ops import arithmetic, linear
from provenn.models.onnx_ops.arithmetic import added, joined, multiplied, reduced
from provenn.models.onnx_ops.movement import transposed
from provenn.models.onnx_ops.nonlinear import each
from provenn.models.onnx_ops.normalization import over_own_root, under_root
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value, Variable
from provenn.verifier.ops.abs import Abs
from provenn.verifier.ops.arithmetic import ReduceSum
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.exponential import Log
from provenn.verifier.ops.log_sum_exp import LogSumExp
from provenn.verifier.ops.matmul import MatMul
from provenn.verifier.ops.power import Pow, Reciprocal, Sqrt
from provenn.verifier.ops.product import Multiply
from provenn.verifier.ops.softmax import AlongAxis, LogSoftmax, Softmax


def multiply(plan: Plan, node: Node) -> Sequence[Value]:
    """X y; of a value with itself its square."""
    x, y = node.input(0), node.input(1)
    if not (isinstance(x, Variable) and isinstance(y, Variable)):
        return arithmetic.multiply(plan, node)
    return [_product(plan, node, x, y)]


def divide(plan: Plan, node: Node) -> Sequence[Value]:
    """X / y; x times the reciprocal of y where y is computed."""
    x, y = node.input(0), node.input(1)
    if not isinstance(y, Variable):
        return arithmetic.divide(plan, node)
    inverse = _inverse(plan, node, y)
    if isinstance(x, Variable):
        return [_product(plan, node, x, inverse)]
    known = x.known if isinstance(x, Constant) and x.floating else None
    if known is not None and known.size == 1 and len(x.shape) <= len(y.shape):
        return [multiplied(plan, node, inverse, float(known.flat[0]))]
    return arithmetic.multiply(plan, replace(node, inputs=(x, inverse)))


def reciprocal(plan: Plan, node: Node) -> Sequence[Value]:
    """1 / x."""
    x = node.input(0)
    return [_inverse(plan, node, x) if isinstance(x, Variable) else each(Reciprocal())(plan, node)[0]]


def _product(plan: Plan, node: Node, x: Variable, y: Variable) -> Value:
    if x.step == y.step and x.shape == y.shape and x.lead == y.lead:
        return plan.emit(node, Pow(2.0), [x], x.shape, x.lead)
    return over_own_root(plan, node, x, y) or over_own_root(plan, node, y, x) or joined(plan, node, Multiply(), x, y)


def _inverse(plan: Plan, node: Node, y: Variable) -> Variable:
    """1 / y; of a root one function."""
    source = under_root(plan, y)
    value = plan.emit(node, Reciprocal() if source is None else Pow(-0.5), [source or y], y.shape, y.lead)
    assert isinstance(value, Variable)
    return value


def matmul(plan: Plan, node: Node) -> Sequence[Value]:
    """X y, as numpy multiplies stacks of matrices."""
    x, y = node.input(0), node.input(1)
    if not (isinstance(x, Variable) and isinstance(y, Variable)):
        return linear.matmul(plan, node)
    node.require(x.shape and y.shape, "a factor is a single number")
    rows, columns = x.shape[-2:-1], y.shape[-1:] if len(y.shape) > 1 else ()
    product = matrices(
        plan,
        node,
        x if len(x.shape) > 1 else plan.view(node, x, (1, *x.shape)),
        y if len(y.shape) > 1 else plan.view(node, y, (*y.shape, 1)),
    )
    return [plan.view(node, product, (*product.shape[:-2], *rows, *columns))]


def matrices(plan: Plan, node: Node, x: Value, y: Value) -> Value:
    """The product of two computed stacks of matrices."""
    node.require(x.shape[-1] == y.shape[-2], f"{list(x.shape)} does not fit {list(y.shape)}")
    shape = (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
    lead = len(shape) > 2 and shape[0] == 1 and (x.lead or y.lead)
    # A stack with fewer axes is aligned from the right whichever way it is held, as long as its matrices are whole.
    held = [v if lead and 2 < len(v.shape) < len(shape) else _held(plan, node, v, len(shape), lead) for v in (x, y)]
    return plan.emit(node, MatMul(), held, shape, lead)


def _held(plan: Plan, node: Node, x: Value, rank: int, lead: bool) -> Value:
    return plan.held(node, x, lead and len(x.shape) == rank)


def gemm(plan: Plan, node: Node) -> Sequence[Value]:
    """Alpha A' B' + beta C, where A and B are both computed."""
    x, y, term = node.input(0), node.input(1), node.given(2)
    if not (isinstance(x, Variable) and isinstance(y, Variable)):
        return linear.gemm(plan, node)
    alpha, beta = node.attribute("alpha", 1.0), node.attribute("beta", 1.0)
    flip_x, flip_y = node.flag("transA"), node.flag("transB")
    node.require(len(x.shape) == len(y.shape) == 2, "A and B must be matrices")
    first = transposed(plan, node, x, (1, 0)) if flip_x else x
    second = transposed(plan, node, y, (1, 0)) if flip_y else y
    product = multiplied(plan, node, matrices(plan, node, first, second), alpha)
    if term is None:
        return [product]
    fits = np.broadcast_shapes(term.shape, product.shape) == product.shape
    node.require(fits, f"C of shape {list(term.shape)} does not fit {list(product.shape)}")
    return [added(plan, node, product, multiplied(plan, node, term, beta))]


def softmax(plan: Plan, node: Node) -> Sequence[Value]:
    """The softmax along an axis."""
    return [_along(plan, node, Softmax)]


def log_softmax(plan: Plan, node: Node) -> Sequence[Value]:
    """The logarithm of the softmax."""
    return [_along(plan, node, LogSoftmax)]


def _along(plan: Plan, node: Node, kind: type[AlongAxis]) -> Value:
    """Before opset 13 all axes from `axis` on count as one: if that is the last alone, as it does now."""
    x, rank = node.input(0), len(node.input(0).shape)
    axis = node.axis(node.attribute("axis", -1 if node.opset >= 13 else 1), rank)
    if node.opset >= 13 or axis == rank - 1:
        return along(plan, node, kind, x, axis)
    flat = plan.view(node, x, (prod(x.shape[:axis]), prod(x.shape[axis:])))
    return plan.view(node, along(plan, node, kind, flat, 1), x.shape)


def along(plan: Plan, node: Node, kind: type[AlongAxis], x: Value, axis: int) -> Value:
    """The op along one axis."""
    x = plan.held(node, x, x.lead and axis > 0)
    return plan.emit(node, kind(axis - x.lead), [x], x.shape, x.lead)


def reduce_log_sum_exp(plan: Plan, node: Node) -> Sequence[Value]:
    """log(sum of exp) over axes."""
    return reduced(plan, node, LogSumExp)


def reduce_log_sum(plan: Plan, node: Node) -> Sequence[Value]:
    """log(sum) over axes."""
    return [_then(plan, node, reduced(plan, node, ReduceSum)[0], Log())]


def reduce_sum_square(plan: Plan, node: Node) -> Sequence[Value]:
    """Sum of squares over axes."""
    return reduced(plan, _after(plan, node, Pow(2.0)), ReduceSum)


def reduce_l1(plan: Plan, node: Node) -> Sequence[Value]:
    """Sum of absolute values over axes."""
    return reduced(plan, _after(plan, node, Abs()), ReduceSum)


def reduce_l2(plan: Plan, node: Node) -> Sequence[Value]:
    """Root of the sum of squares over axes."""
    return [_then(plan, node, reduce_sum_square(plan, node)[0], Sqrt())]


def _after(plan: Plan, node: Node, op: Op) -> Node:
    """The node with the op applied to what it reads."""
    return replace(node, inputs=(_then(plan, node, node.input(0), op), *node.inputs[1:]))


def _then(plan: Plan, node: Node, x: Value, op: Op) -> Value:
    return plan.emit(node, op, [x], x.shape, x.lead)
