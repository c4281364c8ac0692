"""Small networks for the trusted kernel: constants computed, and operators that copy or add entries as matrices.

The kernel reads few operators. Of a small network whatever does not depend on the input is a stored tensor here, and a
node that copies, negates or adds entries of one computed tensor is the matrix that it is: y = W x + b, found by running
the node at 0 and at unit vectors, where entries of W are 0, 1 or -1 and those of b stored numbers, exactly. Types
between floats are dropped: the result is meant for the kernel alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from provenn.models.runtime import ERRORS, options
from provenn.verifier.errors import InvalidModel

COPYING = frozenset(
    {"Concat", "Expand", "Gather", "Identity", "Neg", "Pad", "ReduceSum", "Slice", "Split", "Squeeze", "Tile",
     "Transpose", "Unsqueeze"}
)  # fmt: skip
"""Operators whose results are copies, negatives and sums of entries."""

SIZE = 256
"""Most entries of a tensor that a matrix is made for."""

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)

Array = NDArray[Any]


def with_matrices(model: ModelProto) -> ModelProto:
    """The same function; nodes of large tensors stay as they are.   Raises: InvalidModel if it cannot be run."""
    try:
        known = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise InvalidModel(f"ONNX cannot infer the shapes: {str(error)[:300]}") from error
    values = {v.name: v for v in (*known.value_info, *known.input)}
    small = {name: v for name, v in values.items() if 0 < prod(_shape(v)) <= SIZE and _kind(v) in FLOATS}
    computed = _computed(model)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    folded = [name for node in model.graph.node for name in node.output if name and name not in computed]
    stored |= dict(zip(folded, _run(model, folded), strict=True)) if folded else {}
    changed = ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:], changed.graph.initializer[:]
    renamed: dict[str, str] = {}
    for node in model.graph.node:
        if not computed.issuperset(filter(None, node.output)):
            continue
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [renamed.get(name, name) for name in node.input]
        source = [name for name in node.input if name in computed]
        if node.op_type == "Cast" and source[0] in small and node.output[0] in small:
            renamed[node.output[0]] = copy.input[0]
        elif node.op_type in COPYING and len(source) == 1 and source[0] in small:
            constants = [numpy_helper.from_array(stored[n], n) for n in dict.fromkeys(node.input) if n in stored]
            alone = _alone(model, node, small[source[0]], constants)
            changed.graph.node.extend(_matrices(alone, copy.input[list(node.input).index(source[0])], stored))
        else:
            changed.graph.node.append(copy)
    read = {name for node in changed.graph.node for name in node.input}
    changed.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in stored.items() if name in read)
    return changed


def _shape(value: ValueInfoProto) -> tuple[int, ...]:
    """Its extents, 0 where one is not known."""
    return tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)


def _kind(value: ValueInfoProto) -> int:
    return int(value.type.tensor_type.elem_type)


def _computed(model: ModelProto) -> set[str]:
    """What depends on the input."""
    found = {value.name for value in model.graph.input}
    for node in model.graph.node:
        if node.op_type not in ("Shape", "Size") and found.intersection(node.input):
            found.update(filter(None, node.output))
    return found


def _run(model: ModelProto, names: Sequence[str]) -> list[Array]:
    """Values of a model with one input, at 0."""
    asked = ModelProto()
    asked.CopyFrom(model)
    del asked.graph.output[:]
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    (value,) = model.graph.input
    zeros = np.zeros([d.dim_value for d in value.type.tensor_type.shape.dim], np.float32)
    return _session(asked)({value.name: zeros})


def _matrices(alone: ModelProto, read: str, stored: dict[str, Array]) -> list[NodeProto]:
    """A model of one node as one matrix an output, over what `read` names; the tensors join the stored ones."""
    (value,) = alone.graph.input
    shape, kind = _shape(value), np.float32 if _kind(value) == TensorProto.FLOAT else np.float64
    size, run = prod(shape), _session(alone)
    base = run({value.name: np.zeros(shape, kind)})
    columns = [run({value.name: unit.reshape(shape)}) for unit in np.eye(size, dtype=kind)]
    nodes = []
    for place, (name, zero) in enumerate(zip((o.name for o in alone.graph.output), base, strict=True)):
        matrix = np.stack([(column[place] - zero).ravel() for column in columns])
        if not np.isin(matrix, (-1, 0, 1)).all():
            raise InvalidModel(f"'{name}' does not only copy, negate and add entries")
        tensors = {"flat": np.array([1, size], np.int64), "w": matrix, "b": zero.reshape(1, -1),
                   "shape": np.array(zero.shape, np.int64)}  # fmt: skip
        stored |= {f"{name}/{key}": array for key, array in tensors.items()}
        nodes += [
            helper.make_node("Reshape", [read, f"{name}/flat"], [f"{name}/x"]),
            helper.make_node("MatMul", [f"{name}/x", f"{name}/w"], [f"{name}/wx"]),
            helper.make_node("Add", [f"{name}/wx", f"{name}/b"], [f"{name}/y"]),
            helper.make_node("Reshape", [f"{name}/y", f"{name}/shape"], [name]),
        ]
    return nodes


def _alone(model: ModelProto, node: NodeProto, value: ValueInfoProto, constants: Sequence[TensorProto]) -> ModelProto:
    """A model of this node, `value` its input."""
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "node", [value], outputs, constants)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


class _Run:
    """A model in onnxruntime."""

    def __init__(self, model: ModelProto) -> None:
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options(), providers=["CPUExecutionProvider"]
        )

    def __call__(self, feed: Mapping[str, Array]) -> list[Array]:
        return [np.asarray(value) for value in self._session.run(None, dict(feed))]


def _session(model: ModelProto) -> _Run:
    try:
        return _Run(model)
    except ERRORS as error:
        raise InvalidModel(f"onnxruntime refuses a part of the model: {str(error)[:300]}") from error
