"""Forms of the operators that select by size; each is one node held against onnxruntime."""

from __future__ import annotations

import numpy as np
from onnx_kit import OneOp

ROW = np.array([-0.5, 0.25, 1.0, 0.0], dtype=np.float32)
LOW = np.float32(-0.25)


def count(k: int) -> np.ndarray:
    return np.array([k], dtype=np.int64)


FORMS = {
    "max of a row": OneOp("Max", ("n", 3, 4), (ROW,)),
    "max of two more": OneOp("Max", (1, 4), (ROW, LOW), opset=8),
    "max from the right": OneOp("Max", (1, 4), (ROW,), place=1),
    "min of a row": OneOp("Min", (1, 3, 4), (ROW,), opset=12),
    "min enlarging": OneOp("Min", (1, 4), (ROW.reshape(4, 1),)),
    "min alone": OneOp("Min", ("n", 4), ()),
    "largest of all": OneOp("ReduceMax", (1, 3, 4), (), {"keepdims": 0}),
    "largest of rows": OneOp("ReduceMax", ("n", 3, 4), (), {"axes": [-1]}),
    "largest of many": OneOp("ReduceMax", ("n", 5, 4), (), {"axes": [1, 2]}, 13),
    "smallest of rows": OneOp("ReduceMin", (1, 3, 4), (count(2),), {"keepdims": 0}, 18),
    "smallest of none": OneOp("ReduceMin", (1, 3, 4), (), {"axes": [0]}, 11),
    "first two": OneOp("TopK", ("n", 5), (count(2),), {"axis": 1}, 11, 2),
    "first two, attribute": OneOp("TopK", ("n", 5), (), {"k": 2}, 9, 2),
    "last three": OneOp("TopK", (1, 2, 12), (count(3),), {"largest": 0}, 20, 2),
    "sorted": OneOp("TopK", (1, 3, 4), (count(3),), {"axis": 1, "largest": 0}, 11, 2),
}
