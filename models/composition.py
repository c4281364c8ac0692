"""Networks wired into one: each keeps its nodes, renamed apart, and reads values that others compute."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.version_converter import ConvertError, convert_version

from provenn.models.admission import Admitted, admitted
from provenn.models.executor import OnnxExecutor
from provenn.models.implicit_file import FORMAT, is_implicit_file
from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decompressed
from provenn.models.onnx_ops.constants import SCALARS
from provenn.models.preprocessing import INITIALIZERS_ALONE
from provenn.verifier.errors import InvalidModel

INPUT = "input"
POINTS, SCALES, CLOSE = 16, (0.0, 1e-3, 0.1, 1.0, 10.0, 100.0), 1e-4
"""Inputs of each size at which a network of another operator set is run beside what became of it; how close they must
be, as a share of the largest output of this size: what a wrong clip or a wrong axis changes may show at some sizes
alone."""


def network(data: bytes, what: str, limits: Limits | None = None) -> Admitted:
    """An ONNX file that may stand in another; `what` it is, for the messages.

    Raises: InvalidModel if it is no ONNX file or computes nothing; UnsupportedOp, ResourceLimit as for any network.
    """
    try:
        implicit = is_implicit_file(decompressed(data, limits or Limits()))
        found = None if implicit else admitted(data, limits=limits)
    except InvalidModel as error:
        error.args = (f"the {what}: {error}",)
        raise
    if found is None:
        raise InvalidModel(f"the {what} is a {FORMAT}; only ONNX files are put together")
    if found.output_name == found.input_name:
        raise InvalidModel(f"the {what}'s output is its input")
    return found


def converted(found: Admitted, opset: int, what: str, limits: Limits | None = None) -> Admitted:
    """The same network in that operator set: read as the same ops with the same numbers, and running alike.

    Raises: InvalidModel if ONNX's converter fails, or changes it; UnsupportedOp, ResourceLimit as for any network.
    """
    if found.file.opset == opset:
        return found
    change = f"the {what} could not be converted from operator set {found.file.opset} to {opset}"
    try:
        model = convert_version(found.file.model, opset)
        content = model.SerializeToString(deterministic=True)
        result, before, after = (
            admitted(content, limits=limits),
            OnnxExecutor(found.file.content),
            OnnxExecutor(content),
        )
    except (ConvertError, RuntimeError, ValueError, InvalidModel) as error:
        raise InvalidModel(f"{change}; export both with the same one: {str(error)[:300]}") from error
    if not _read_alike(found, result) or not _run_alike(before, after):
        raise InvalidModel(f"{change}: what became of it computes something else; export both with the same one")
    return result


def _read_alike(one: Admitted, other: Admitted) -> bool:
    """Whether the readings of both files are the same function: runs at some inputs do not see what happens at others.

    What a converter gets wrong (ONNX's own Resize from 10 to 11, where it is linear) may be behind a relu.
    """
    graphs = [each.plan.graph(each.output) for each in (one, other)]
    first, second = ([(node.op, node.inputs, node.shape) for node in graph.nodes] for graph in graphs)
    return _identical(first, second)


def _identical(one: Any, other: Any) -> bool:
    """Whether both are of one kind and hold the same, to the last bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return bool(torch.equal(one, other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_identical, one, other))
    if is_dataclass(one):
        return all(_identical(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return bool(one == other)


def _run_alike(before: OnnxExecutor, after: OnnxExecutor) -> bool:
    """Whether both compute the same, up to rounding, at random inputs of every size, of both signs and of one."""
    generator = np.random.default_rng(0)
    for scale in SCALES:
        normal = scale * generator.standard_normal((POINTS, *before.input_shape))
        for points in (normal.astype(np.float32), abs(normal).astype(np.float32)):
            one, other = before.run(points), after.run(points)
            finite = one[np.isfinite(one)]
            most = float(abs(finite).max(initial=0.0))
            if not np.allclose(one, other, rtol=CLOSE, atol=CLOSE * most, equal_nan=True):
                return False
    return True


def constants(nodes: Iterable[NodeProto], stored: Iterable[TensorProto]) -> dict[str, NDArray[np.generic]]:
    """The numbers that are given as such, by the names of their values: stored tensors and those of Constant nodes.

    Raises: InvalidModel for a Constant that gives several.
    """
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored}
    return found | {node.output[0]: _given(node) for node in nodes if node.op_type == "Constant"}


def _given(node: NodeProto) -> NDArray[np.generic]:
    """Of a Constant node that has been admitted: a tensor, a number, or a list of them."""
    if len(node.attribute) != 1:
        raise InvalidModel("it must give one constant, as a tensor, a number or a list of numbers", node.name)
    attribute = node.attribute[0]
    value = helper.get_attribute_value(attribute)
    if attribute.name in SCALARS:
        return np.array(value, SCALARS[attribute.name])
    return numpy_helper.to_array(value)


def renamed(found: Admitted, prefix: str, source: str) -> tuple[list[NodeProto], list[TensorProto]]:
    """Copies of the nodes and stored tensors: the input is now `source`, every other name begins with the prefix."""
    graph: GraphProto = found.file.model.graph

    def name(old: str) -> str:
        return source if old == found.input_name else prefix + old if old else ""

    nodes, stored = [], []
    for tensor in graph.initializer:
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.name = name(tensor.name)
        stored.append(copy)
    for node in graph.node:
        made = NodeProto()
        made.CopyFrom(node)
        made.name, made.domain = prefix + node.name if node.name else "", ""
        made.input[:] = [name(old) for old in node.input]
        made.output[:] = [name(old) for old in node.output]
        nodes.append(made)
    return nodes, stored


def assembled(
    name: str,
    nodes: Sequence[NodeProto],
    stored: Sequence[TensorProto],
    ends: tuple[Any, Any],
    versions: tuple[int, int],
) -> bytes:
    """The file of one graph; ends: its input and output as declared; versions: of the operator set, of ONNX's form."""
    graph = helper.make_graph(list(nodes), name, [ends[0]], [ends[1]], list(stored))
    opset, form = versions
    ir = max(INITIALIZERS_ALONE, form)
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class Composition:
    """Nodes over one float32 input [1, inputs], grown value by value; every value is [1, k] and has a name.

    inputs: may grow until a file is made. opset: of all networks in it; form: the newest version of ONNX's form;
    prefix: of the names that are made here.
    """

    def __init__(self, inputs: int, opset: int, form: int = INITIALIZERS_ALONE, prefix: str = "composition/") -> None:
        self.inputs, self.opset, self.form, self.prefix = inputs, opset, form, prefix
        self.nodes: list[NodeProto] = []
        self.stored: list[TensorProto] = []
        self._count = 0

    def node(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """One more node's only output."""
        name = self._fresh()
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def constant(self, array: NDArray[Any]) -> str:
        """A stored tensor."""
        name = self._fresh()
        self.stored.append(numpy_helper.from_array(array, name))
        return name

    def real(self, numbers: Any) -> str:
        """Stored float32 numbers."""
        return self.constant(np.asarray(numbers, np.float32))

    def taken(self, value: str, places: Sequence[int]) -> str:
        """Some entries of a value, in that order."""
        return self.node("Gather", [value, self.constant(np.array(places, np.int64))], axis=1)

    def beside(self, values: Sequence[str]) -> str:
        """Values one after the other."""
        return values[0] if len(values) == 1 else self.node("Concat", values, axis=1)

    def through(self, found: Admitted, prefix: str, value: str) -> str:
        """A network of the value, which has as many entries as it takes inputs.   Raises: InvalidModel."""
        if found.input_type != np.dtype(np.float32):
            raise InvalidModel(f"network '{prefix}' computes in {found.input_type}; export it in float32")
        if found.output_type != np.dtype(np.float32):
            raise InvalidModel(f"network '{prefix}' ends in {found.output_type}; export it in float32")
        if len(found.input.shape) != 2:
            value = self.node("Reshape", [value, self.constant(np.array(found.input.shape, np.int64))])
        nodes, stored = renamed(found, prefix, value)
        self.nodes += map(self._plainer, nodes)
        self.stored += stored
        self.form = max(self.form, found.file.model.ir_version)
        size = int(np.prod(found.output.held_shape))
        return self.node("Reshape", [prefix + found.output_name, self.constant(np.array([1, size], np.int64))])

    def _fresh(self) -> str:
        self._count += 1
        return f"{self.prefix}{self._count}"

    def _plainer(self, node: NodeProto) -> NodeProto:
        """-z as (-1) z, which the trusted kernel reads, too; any other node as it is.

        The factor has no axes: of one with an axis, a z without axes would get one, which readers of its shape see.
        """
        if node.op_type != "Neg":
            return node
        return helper.make_node("Mul", [*node.input, self.real(-1)], list(node.output), node.name)

    def file(self, outputs: Sequence[str]) -> bytes:
        """The ONNX file whose output is these values one after the other, [1, k]."""
        name = f"{self.prefix}output"
        last = helper.make_node("Concat", list(outputs), [name], name, axis=1)
        source = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, self.inputs])
        result = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "outputs"])
        nodes = [*self.nodes, last]
        return assembled("composition", nodes, self.stored, (source, result), (self.opset, self.form))
