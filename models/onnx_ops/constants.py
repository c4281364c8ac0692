"""Operators that make constants, or leave their input as it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value
from provenn.models.tensors import COMPUTED, FLOATS, INTEGERS, Array, type_name

SCALARS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def constant(plan: Plan, node: Node) -> Sequence[Value]:
    """A tensor, a number, or a list of numbers."""
    value = node.attribute("value")
    for name, kind in SCALARS.items():
        given = node.attribute(name)
        value = value if given is None else np.array(given, dtype=kind)
    node.supported(isinstance(value, np.ndarray), "a constant that is neither a tensor nor numbers")
    return [plan.stored(node.name, value)]


def constant_of_shape(plan: Plan, node: Node) -> Sequence[Value]:
    """One number, repeated."""
    shape = node.integers(0, "the shape")
    value = np.asarray(node.attribute("value", np.zeros(1, np.float32)))
    node.require(value.size == 1, "its value is not one number")
    node.require(min(shape, default=1) > 0, f"shape {list(shape)} is empty")
    floating = value.dtype.kind == "f"
    kind = np.float64 if floating else np.int64
    return [plan.fold(node, [], lambda: np.full(shape, value.item(), dtype=kind), shape, floating)]


def shape(plan: Plan, node: Node) -> Sequence[Value]:
    """The shape at batch 1, or a part of it."""
    extents = node.input(0).shape[node.attribute("start", 0) : node.attribute("end")]
    return [plan.stored(node.name, np.array(extents, dtype=np.int64))]


def identity(plan: Plan, node: Node) -> Sequence[Value]:
    """The input."""
    return [node.input(0)]


def dropout(plan: Plan, node: Node) -> Sequence[Value]:
    """The input, as in inference; the mask is not computed."""
    node.attribute("ratio")
    node.attribute("seed")
    training = node.given(2) is not None and np.any(node.integers(2, "training_mode"))
    node.supported(not training, "its training form; export the network in inference mode")
    return [node.input(0)]


def cast(plan: Plan, node: Node) -> Sequence[Value]:
    """Between types of floats the input; a constant is rounded to the type named."""
    x, target = node.input(0), node.attribute("to")
    node.attribute("saturate")
    node.attribute("round_mode")
    known = ", ".join(type_name(t) for t in COMPUTED)
    if not isinstance(x, Constant):
        node.supported(target in COMPUTED, f"computed values cast to {type_name(target)}; only {known}")
        return [x]
    kinds = FLOATS | INTEGERS
    node.supported(target in kinds, f"constants cast to {type_name(target)}")
    if target in INTEGERS and not x.floating:
        node.require(x.known is None or _fits(x.known, kinds[target]), f"a number does not fit {type_name(target)}")
    kind = np.dtype(kinds[target])
    return [plan.fold(node, [x], lambda a: _cast(a, kind), x.shape, target in FLOATS, kind == np.float16)]


def _cast(array: Array, target: np.dtype) -> Array:
    """The numbers as `target` holds them.   Raises: OverflowError for whole numbers that it cannot hold."""
    if target.kind == "i" and not _fits(np.trunc(array), target.type):
        raise OverflowError(f"a number does not fit {target}")
    with np.errstate(over="ignore"):
        return array.astype(target)


def _fits(array: Array, target: type) -> bool:
    if np.dtype(target).kind != "i" or not array.size:
        return True
    limits = np.iinfo(target)
    return bool(limits.min <= array.min() and array.max() <= limits.max)
