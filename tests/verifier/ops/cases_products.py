"""Cases of the table: products of computed values, the softmax and its relatives, what normalization is made of."""

from __future__ import annotations

from op_case import Case, OnnxNode, integers

from provenn.verifier.ops.centre import Centre
from provenn.verifier.ops.log_sum_exp import LogSumExp
from provenn.verifier.ops.matmul import MatMul
from provenn.verifier.ops.product import Multiply
from provenn.verifier.ops.root_mean_square import RootMeanSquare
from provenn.verifier.ops.softmax import LogSoftmax, Softmax

BOTH = (None, None)


def reduced(name: str, shape: tuple[int, ...], axes: tuple[int, ...], keep: bool) -> Case:
    node = OnnxNode("ReduceLogSumExp", (None, integers(*(axis + 1 for axis in axes))), {"keepdims": int(keep)})
    return Case(f"log-sum-exp-{name}", LogSumExp(axes, keep), (shape,), node)


PRODUCT_CASES = [
    Case("multiply", Multiply(), ((3, 4), (3, 4)), OnnxNode("Mul", BOTH)),
    Case("multiply-broadcast", Multiply(), ((3, 1), (1, 4)), OnnxNode("Mul", BOTH)),
    Case("multiply-fewer-axes", Multiply(), ((2,), (3, 4, 2)), None),
    Case("matmul-matrices", MatMul(), ((3, 4), (4, 2)), OnnxNode("MatMul", BOTH)),
    Case("matmul-stacks", MatMul(), ((2, 3, 2), (2, 2, 3)), OnnxNode("MatMul", BOTH)),
    Case("matmul-broadcast", MatMul(), ((2, 1, 2, 3), (2, 3, 1)), None),
    Case("centre-last", Centre((1,)), ((3, 4),), None),
    Case("centre-two", Centre((2, 0)), ((3, 2, 2),), None),
    Case("centre-one", Centre((0,)), ((1, 3),), None),
    reduced("last", (3, 4), (1,), True),
    reduced("two", (3, 2, 2), (0, 2), False),
    reduced("one", (1, 3), (0,), True),
    Case("softmax-last", Softmax(1), ((3, 4),), OnnxNode("Softmax", (None,), {"axis": 2})),
    Case("softmax-first", Softmax(0), ((5, 2, 2),), OnnxNode("Softmax", (None,), {"axis": 1})),
    Case("softmax-one", Softmax(0), ((1, 3),), OnnxNode("Softmax", (None,), {"axis": 1})),
    Case("log-softmax-last", LogSoftmax(1), ((3, 4),), OnnxNode("LogSoftmax", (None,), {"axis": -1})),
    Case("log-softmax-first", LogSoftmax(0), ((5, 2, 2),), OnnxNode("LogSoftmax", (None,), {"axis": 1})),
    Case("root-mean-square-last", RootMeanSquare((1,), 1e-5), ((3, 4),), None),
    Case("root-mean-square-two", RootMeanSquare((2, 0), 1.0), ((3, 2, 2),), None),
]
