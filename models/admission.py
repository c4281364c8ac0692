"""Who gets in: a stranger's bytes become a network whose form and size are known, before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ValueInfoProto

from provenn.models.limits import Limits
from provenn.models.onnx_file import OnnxFile, node_name, parse
from provenn.models.onnx_ops import OPERATORS
from provenn.models.onnx_ops.folding import blamed
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Unheld, Value, Variable
from provenn.models.tensors import COMPUTED, FLOATS, attribute_value, decode, type_name
from provenn.verifier.errors import InvalidModel, UnsupportedOp
from provenn.verifier.ops.base import Shape

__all__ = ["Admitted", "Limits", "admit", "admitted"]


@dataclass(frozen=True, eq=False)
class Admitted:
    """A network that may be read and run: its file, its plan, and its one input and output."""

    file: OnnxFile
    plan: Plan
    input_name: str
    input: Variable
    output_name: str
    output: Variable
    input_type: np.dtype[Any]

    @property
    def output_type(self) -> np.dtype[Any]:
        """As the file declares it: a Cast may part it from the input's."""
        return np.dtype(FLOATS[self.file.model.graph.output[0].type.tensor_type.elem_type])


def admit(data: bytes, files: Mapping[str, bytes] | None = None, limits: Limits | None = None) -> onnx.ModelProto:
    """The model of an ONNX file (gzip or not) that can be verified; external data come from the bundle `files` alone.

    Every shape is known and within the limits before any constant is computed; nothing is executed.
    Raises: InvalidModel, UnsupportedOp or ResourceLimit, each naming the cause and what to do.
    """
    return admitted(data, files, limits).file.model


def admitted(data: bytes, files: Mapping[str, bytes] | None = None, limits: Limits | None = None) -> Admitted:
    """As `admit`, with the plan that was made on the way."""
    limits = limits or Limits()
    return _planned(parse(data, files or {}, limits), limits)


def _planned(file: OnnxFile, limits: Limits) -> Admitted:
    graph = file.model.graph
    plan = Plan(limits)
    values: dict[str, Value | None] = {"": None}
    for tensor in graph.initializer:
        values[tensor.name] = plan.stored(tensor.name, decode(tensor, f"initializer '{tensor.name}'", limits))
    declared = _only_input([i for i in graph.input if i.name not in values])
    value = plan.input(declared.name or "input", *_input_shape(declared, limits))
    values[declared.name] = value
    for index, proto in enumerate(graph.node):
        _read(plan, values, proto, node_name(proto, index), file.opset)
    name = _only_output([o.name for o in graph.output])
    output = values.get(name)
    if output is None:
        raise InvalidModel(f"output '{name}' is not computed by any node (in a form that is read here)")
    if isinstance(output, Constant):
        raise InvalidModel(f"output '{name}' does not depend on the input; there is nothing to verify")
    if not isinstance(output, Variable):
        raise InvalidModel(f"output '{name}' is {output.kind}; a network to verify must compute numbers")
    _require_computed(graph.output[0], "output")
    _require_declared(graph, values)
    kind = np.dtype(FLOATS[declared.type.tensor_type.elem_type])
    return Admitted(file, plan, declared.name, value, name, _led(plan, output, name), kind)


def _read(plan: Plan, values: dict[str, Value | None], proto: onnx.NodeProto, name: str, opset: int) -> None:
    """Plans one node.   Raises: InvalidModel if it is malformed; UnsupportedOp for a form that is not read."""
    for source in proto.input:
        if source not in values:
            raise InvalidModel(f"reads '{source}', an output of a kind that is not computed here", name)
    attributes = {a.name: attribute_value(a, name, plan.limits) for a in proto.attribute}
    node = Node(name, proto.op_type, opset, [values[i] for i in proto.input], proto.output, attributes)
    unread = next((v for v in node.inputs if isinstance(v, Unheld) and node.operator not in v.read_by), None)
    if unread is not None:
        raise UnsupportedOp(name, node.operator, f"{unread.kind} as an input")
    with blamed(name, f"{proto.op_type}: its inputs and attributes do not fit"):
        results = OPERATORS[proto.op_type](plan, node)
    if node.attributes:
        raise UnsupportedOp(name, proto.op_type, f"attribute {', '.join(sorted(node.attributes))} is not read")
    for output, result in zip(proto.output, results, strict=False):
        if output:
            values[output] = result


def _require_declared(graph: onnx.GraphProto, values: Mapping[str, Value | None]) -> None:
    """Raises: InvalidModel for a shape that a value is said to have and has not, at batch 1.

    Where a runtime cannot infer a length itself it believes the file, and computes with what it believes.
    """
    for declared in (*graph.value_info, *graph.output):
        value, extents = values.get(declared.name), declared.type.tensor_type.shape.dim
        said = [n.dim_value if n.HasField("dim_value") else None for n in extents]
        if value is None or all(n is None for n in said):
            continue
        fits = len(said) == len(value.shape) and all(
            n is None or n == length for n, length in zip(said, value.shape, strict=True)
        )
        if not fits:
            shape = f"[{', '.join('?' if n is None else str(n) for n in said)}]"
            raise InvalidModel(
                f"it says that '{declared.name}' has the shape {shape}; at batch 1 it has {list(value.shape)}. Export "
                "the network again, or delete its value_info"
            )


def _only_input(inputs: list[ValueInfoProto]) -> ValueInfoProto:
    if len(inputs) != 1:
        names = ", ".join(f"'{i.name}'" for i in inputs[:5])
        raise InvalidModel(f"it has {len(inputs)} inputs ({names}); a network to verify must have exactly one")
    return inputs[0]


def _only_output(outputs: list[str]) -> str:
    if len(outputs) != 1:
        names = ", ".join(f"'{o}'" for o in outputs[:5])
        raise InvalidModel(f"it has {len(outputs)} outputs ({names}); choose one and export the network with it alone")
    return outputs[0]


def _require_computed(declared: ValueInfoProto, what: str) -> None:
    kind = declared.type.tensor_type.elem_type
    if not declared.type.HasField("tensor_type") or kind not in COMPUTED:
        raise InvalidModel(f"{what} '{declared.name}' has element type {type_name(kind)}; it must be FLOAT or DOUBLE")


def _input_shape(declared: ValueInfoProto, limits: Limits) -> tuple[Shape, bool]:
    """(ONNX shape at batch 1, whether the first axis is the batch): it is, where there are two axes or more.

    Raises: InvalidModel if there is no shape, an axis other than the batch has no fixed length, or the batch is
    fixed to another number than 1.
    """
    what = f"input '{declared.name}'"
    kind = declared.type.tensor_type
    _require_computed(declared, "input")
    if not kind.HasField("shape"):
        raise InvalidModel(f"{what} declares no shape; export the network with a fixed one (the batch may be symbolic)")
    shape = []
    for axis, extent in enumerate(kind.shape.dim):
        fixed = extent.HasField("dim_value") and extent.dim_value >= 0
        if not fixed and axis > 0:
            name = f" ('{extent.dim_param}')" if extent.dim_param else ""
            raise InvalidModel(f"axis {axis}{name} of {what} has no fixed length; only axis 0, the batch, may be so")
        shape.append(extent.dim_value if fixed else 1)
    limits.require_elements(shape, what)
    if 0 in shape:
        raise InvalidModel(f"{what} of shape {shape} is empty; export the network with a batch of 1")
    if len(shape) > 1 and shape[0] != 1:
        raise InvalidModel(f"{what} has a fixed batch of {shape[0]}; export with a batch of 1, or a symbolic one")
    return tuple(shape), len(shape) > 1


def _led(plan: Plan, output: Value, name: str) -> Variable:
    """The output held without its batch axis, with one axis at least."""
    node = Node(name or "output", "Reshape", 0, (), (name,))
    shape = output.shape
    lead = len(shape) > 1 and shape[0] == 1
    held = plan.held(node, output, lead) if shape else plan.view(node, output, (1,))
    assert isinstance(held, Variable)
    return held
