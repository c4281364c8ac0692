"""Along axes: means, sums, extremes, the largest values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from provenn.models import onnx_layers as layers
from provenn.models.onnx_writer import Value, Writer
from provenn.models.pt2.call import Call


def reduced(operator: str) -> Callable[[Writer, Call], list[Value]]:
    """Over the axes `dim`, or over all."""

    def read(w: Writer, call: Call) -> list[Value]:
        x, axes, keep = call.tensor("self"), call.integers("dim", ()), call.flag("keepdim")
        w.require(call.kind("dtype", x.type) == x.type, "a dtype is not read")
        return [layers.reduced(w, operator, x, axes, keep)]

    return read


def extreme(operator: str) -> Callable[[Writer, Call], list[Value | None]]:
    """Max or min along one axis; the places are not computed."""

    def read(w: Writer, call: Call) -> list[Value | None]:
        x, axis, keep = call.tensor("self"), call.integer("dim"), call.flag("keepdim")
        return [layers.reduced(w, operator, x, [axis], keep), None]

    return read


def top(w: Writer, call: Call) -> list[Value | None]:
    """The k largest or smallest values in order; the places are not computed."""
    x, count, axis = call.tensor("self"), call.integer("k"), call.integer("dim", -1)
    rising = not call.flag("largest", True)
    w.require(call.flag("sorted", True), "topk without an order is not read")
    return [layers.largest(w, x, count, axis, rising), None]


def sort(w: Writer, call: Call) -> list[Value | None]:
    """All values along an axis in order; the places are not computed."""
    x, axis, falling = call.tensor("self"), call.integer("dim", -1), call.flag("descending")
    w.require(x.shape, "sorting a single number")
    count = w.within(x, w.axis(axis, len(x.shape)))
    return [layers.largest(w, x, count, axis, not falling), None]


TABLE: dict[str, Callable[[Writer, Call], Sequence[Value | None]]] = {
    "mean.dim": reduced("ReduceMean"),
    "mean.default": reduced("ReduceMean"),
    "sum.dim_IntList": reduced("ReduceSum"),
    "sum.default": reduced("ReduceSum"),
    "amax.default": reduced("ReduceMax"),
    "amin.default": reduced("ReduceMin"),
    "max.dim": extreme("ReduceMax"),
    "min.dim": extreme("ReduceMin"),
    "topk.default": top,
    "sort.default": sort,
}
