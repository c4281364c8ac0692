"""Forms of functions of one number, of products, of softmax and of norms; each is one node held against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx_kit import OneOp

RNG = np.random.default_rng(11)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def axes(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def each(name: str, opset: int = 17, after: str = "", **attributes: Any) -> OneOp:
    return OneOp(name, ("n", 2, 3), (), attributes, opset, after=after)


EVERYWHERE = ("Abs", "Atan", "Ceil", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish")
EVERYWHERE += ("LogSoftmax", "Mish", "Round", "Selu", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign")

FUNCTIONS = {name.lower(): each(name, 18) for name in EVERYWHERE} | {
    "gelu": each("Gelu", 20),
    "gelu tanh": each("Gelu", 20, approximate="tanh"),
    "celu alpha": each("Celu", alpha=0.5),
    "elu alpha": each("Elu", alpha=2.0),
    "selu given": each("Selu", alpha=1.25, gamma=0.75),
    "hard sigmoid given": each("HardSigmoid", alpha=0.3, beta=0.4),
    "log": each("Log", after="Exp"),
    "sqrt": each("Sqrt", after="Exp"),
    "reciprocal": each("Reciprocal", after="Exp"),
    "tan": each("Tan", after="Sigmoid"),
    "square": OneOp("Pow", ("n", 4), (np.float32(2.0),)),
    "cube": OneOp("Pow", ("n", 4), (np.float32(3.0),)),
    "whole exponent": OneOp("Pow", ("n", 4), (np.array([4], np.int64),)),
    "real power": OneOp("Pow", ("n", 4), (np.float32(1.7),), after="Exp"),
    "prelu": OneOp("PRelu", ("n", 3, 2, 2), (np.abs(floats(3, 1, 1)),)),
    "prelu one": OneOp("PRelu", (1, 4), (np.float32([0.25]),), opset=9),
}

FIGURES = {
    "constant over x": OneOp("Div", (1, 3), (floats(3),), place=1, after="Exp"),
    "one over x": OneOp("Div", ("n", 3), (np.float32(1.0),), place=1, after="Exp"),
    "softmax first": OneOp("Softmax", ("n", 4, 3), (), {"axis": 1}, 13),
    "softmax of all": OneOp("Softmax", ("n", 4, 3), (), {"axis": 1}, 11),
    "log softmax first": OneOp("LogSoftmax", (1, 4, 3), (), {"axis": -2}, 13),
    "log sum exp": OneOp("ReduceLogSumExp", ("n", 4, 3), (axes(1),), {"keepdims": 0}, 18),
    "log sum exp of all": OneOp("ReduceLogSumExp", (1, 4, 3), (), {}, 13),
    "log sum": OneOp("ReduceLogSum", ("n", 4, 3), (axes(-1),), {}, 18, after="Exp"),
    "sum of squares": OneOp("ReduceSumSquare", ("n", 4, 3), (), {"axes": [1, 2]}, 13),
    "l1": OneOp("ReduceL1", ("n", 4, 3), (axes(2),), {}, 18),
    "l2": OneOp("ReduceL2", ("n", 4, 3), (), {"axes": [1], "keepdims": 0}, 13),
}

NORMS = {
    "layer norm": OneOp("LayerNormalization", ("n", 3, 4), (floats(4), floats(4)), {"epsilon": 1e-3}),
    "layer norm axes": OneOp("LayerNormalization", ("n", 3, 4), (floats(3, 4),), {"axis": 1}),
    "rms norm": OneOp("RMSNormalization", ("n", 3, 4), (floats(4),), {"epsilon": 1e-3}, 23),
    "instance norm": OneOp("InstanceNormalization", ("n", 3, 4, 2), (floats(3), floats(3))),
    "group norm": OneOp("GroupNormalization", ("n", 4, 3), (floats(4), floats(4)), {"num_groups": 2}, 21),
}

FORMS = {**FUNCTIONS, **FIGURES, **NORMS}
