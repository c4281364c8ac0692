"""Cases of the table: maxima, minima and sorting."""

from __future__ import annotations

from op_case import Case, OnnxNode, integers

from provenn.verifier.ops.gate import Gate
from provenn.verifier.ops.maximum import Maximum, Minimum, ReduceMax, ReduceMin
from provenn.verifier.ops.sort import Sort


def reduced(name: str, kind: type[ReduceMax], shape: tuple[int, ...], axes: tuple[int, ...], keep: bool) -> Case:
    along = integers(*(axis + 1 for axis in axes))
    node = OnnxNode(kind.onnx[0], (None, along), {"keepdims": int(keep)})
    return Case(f"{kind.onnx[0].lower()}-{name}", kind(axes, keep), (shape,), node)


def ordered(name: str, shape: tuple[int, ...], axis: int, descending: bool) -> Case:
    attributes = {"axis": axis + 1, "largest": int(descending), "sorted": 1}
    return Case(
        f"sort-{name}", Sort(axis, descending), (shape,), OnnxNode("TopK", (None, integers(shape[axis])), attributes)
    )


MAXIMA_CASES = [
    Case("maximum", Maximum(), ((3, 4), (3, 4)), OnnxNode("Max", (None, None))),
    Case("maximum-three", Maximum(), ((4,), (4,), (4,)), OnnxNode("Max", (None, None, None))),
    Case("maximum-broadcast", Maximum(), ((3, 1), (2, 3, 4), (1,)), None),
    Case("minimum", Minimum(), ((2, 1), (1, 3)), OnnxNode("Min", (None, None))),
    Case("minimum-four", Minimum(), ((5,),) * 4, OnnxNode("Min", (None,) * 4)),
    Case("gate", Gate(False), ((3, 4), (3, 4)), None),
    Case("gate-closed", Gate(True), ((3, 1), (2, 1, 4)), None),
    ordered("last", (3, 5), 1, True),
    ordered("first", (4, 2), 0, False),
    ordered("pairs", (3, 2, 2), 1, False),
    ordered("one", (1, 3), 0, True),
    reduced("last", ReduceMax, (3, 4), (1,), False),
    reduced("two", ReduceMax, (2, 3, 4), (2, 0), True),
    reduced("one", ReduceMax, (1, 4), (0,), True),
    reduced("first", ReduceMin, (5, 2), (0,), False),
]
